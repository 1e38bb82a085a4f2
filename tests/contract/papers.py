"""What the contract tests need to know of each paper: how to train a tiny model from the command line."""

from dataclasses import dataclass

from scripts import make_toy_data


@dataclass(frozen=True)
class Paper:
    folder: str
    data_flag: str
    tiny: tuple  # flags of a model that trains an iteration in a blink
    edit: tuple  # (text in model.py, its replacement): an edit that changes what the generator draws

    def data(self, tmp_path):
        """Make a tiny data set and return its path: three batches an epoch, so that runs cross epochs."""
        return make_toy_data.make(tmp_path / "data", classes=2, count=24, size=32) / "train"

    def flags(self, data, out, iterations, **changes):
        """Command line of train.py; `changes` are further flags, name=value."""
        flags = ["train.py", self.data_flag, data, "--output_dir", out, "--iterations", iterations, *self.tiny]
        for name, value in changes.items():
            flags += [f"--{name}", value] if value is not None else [f"--{name}"]
        return [str(flag) for flag in flags]


PAPERS = {
    "sagan": Paper(
        "sagan",
        "--data_path",
        tuple(
            "--recipe cifar10 --g_conv_dim 2 --d_conv_dim 4 --d_steps_per_iter 2 --batch_size 8 --ema_decay 0.9 "
            "--device cpu --num_workers 0 --log_every 1 --save_every 1 --sample_every 1000 --keep_checkpoints 0".split()
        ),
        ("return F.tanh(", "return 0.5 * F.tanh("),
    ),
}
