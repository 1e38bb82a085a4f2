"""train.py from its flags to its exit code: a user's mistake ends in one line that names it."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from shared_metrics import process, weights
from shared_metrics.runs import checkpoint
from tests.contract.papers import PAPERS

TINY = PAPERS["sagan"].tiny_flags


@pytest.fixture
def train(paper, capfd):
    """Function that runs train.py's main on flags and returns (exit code, stdout, stderr)."""
    main = process.command(paper("sagan").train.main)

    def run(*flags):
        code = 0
        try:
            main([str(flag) for flag in (*TINY, *flags)])
        except SystemExit as stopped:
            code = stopped.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def data(tmp_path):
    """Two classes of four 32x32 images."""
    rng = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return tmp_path / "data"


def one_line(stderr, *parts):
    """The last line of stderr names all parts, and there is no traceback."""
    line = stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    for part in parts:
        assert str(part) in line, line


def test_a_run_writes_its_folder(train, data, tmp_path):
    out = tmp_path / "out"
    flags = ["--iterations", 2, "--max_frames_per_gif", 2]
    code, printed, _ = train("--data_path", data, "--output_dir", out, *flags)
    assert code == 0 and "8 images in 2 classes of 4 images (a, b)" in printed
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    expected = "args.json log.txt log.jsonl curves.png samples/iter_0000002.png samples.gif "
    expected += "checkpoints/iter_0000001.pdparams checkpoints/iter_0000002.pdparams"
    assert set(expected.split()) <= names
    assert any(name.startswith("log/") for name in names)
    state = checkpoint.load_checkpoint(out / "checkpoints" / "iter_0000002.pdparams")
    assert state["classes"] == ["a", "b"] and state["iteration"] == 2
    assert state["args"]["recipe"] == "cifar10"
    assert Image.open(out / "samples" / "iter_0000002.png").height >= 2 * 32


def test_evaluation_logs_scores_and_keeps_the_best(train, data, tmp_path):
    """And --skip_bad_images holds for the real images of the scores too."""
    out = tmp_path / "out"
    (data / "b" / "3.png").write_bytes(b"no picture")
    flags = "--iterations 2 --eval_every 1 --eval_samples 4 --inception_weights random".split()
    flags += ["--skip_bad_images"]
    code, printed, err = train("--data_path", data, "--output_dir", out, *flags)
    assert code == 0, err
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    scores = [row for row in rows if "fid_not_comparable" in row]
    assert [row["iteration"] for row in scores] == [1, 2]
    (path,) = (out / "checkpoints").glob("best_*")  # a random Inception orders no checkpoints
    assert path.name == "best_fd_efficientnet.pdparams"
    best = checkpoint.load_checkpoint(path)["best"]["fd_efficientnet"]
    assert best["value"] == min(row["fd_efficientnet"] for row in scores)
    assert "random" in printed


def test_missing_data_path(train, tmp_path):
    code, _, err = train("--output_dir", tmp_path / "out")
    assert code == 2
    one_line(err, "--data_path")
    code, _, err = train("--output_dir", tmp_path / "out", "--data_path", tmp_path / "nowhere")
    assert code == 2
    one_line(err, "--data_path", "nowhere", "no such folder")


def test_empty_class_folder(train, data, tmp_path):
    (data / "c").mkdir()
    code, _, err = train("--output_dir", tmp_path / "out", "--data_path", data)
    assert code == 2
    one_line(err, data / "c", "no images")


def test_another_number_of_classes(train, data, tmp_path):
    flags = ["--output_dir", tmp_path / "out", "--data_path", data]
    code, _, err = train(*flags, "--num_classes", 1000)
    assert code == 2
    one_line(err, "--num_classes 1000", "holds 2")


def test_too_few_images(train, data, tmp_path):
    flags = ["--output_dir", tmp_path / "out", "--data_path", data]
    code, _, err = train(*flags, "--batch_size", 9, "--iterations", 1)
    assert code == 2
    one_line(err, "--batch_size 9", "8")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_or_skipped(train, data, tmp_path, workers):
    broken = data / "a" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    flags = ["--data_path", data, "--iterations", 4, "--num_workers", workers]
    code, _, err = train("--output_dir", tmp_path / "stops", *flags)
    assert code == 2
    one_line(err, broken)
    code, printed, err = train("--output_dir", tmp_path / "goes_on", *flags, "--skip_bad_images")
    assert code == 0, err
    assert printed.count("skipped: ") == 1 and str(broken) in printed


def test_resume_with_another_width_lists_the_shapes(train, data, tmp_path):
    flags = ["--data_path", data, "--output_dir", tmp_path / "out"]
    assert train(*flags, "--iterations", 1)[0] == 0
    code, _, err = train(*flags, "--iterations", 2, "--resume", "--d_conv_dim", 8)
    assert code == 2
    one_line(err, "iter_0000001.pdparams", "opt_block1.snconv2d1.weight_orig")


def test_another_papers_checkpoint(train, data, tmp_path):
    state = {"encoder": {"w": np.ones(2, np.float32)}}
    path = checkpoint.save_checkpoint(tmp_path / "other", 1, state, keep=0)
    for flag in ("--resume", "--pretrained_model"):
        flags = ["--data_path", data, "--output_dir", tmp_path / flag, "--iterations", 2]
        code, _, err = train(*flags, flag, path)
        assert code == 2
        one_line(err, path)


class Evil:
    """A pickle that would create a file when loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("flag", ["--resume", "--pretrained_model"])
def test_a_pickle_with_foreign_objects_is_refused_and_runs_nothing(train, data, tmp_path, flag):
    path = tmp_path / "evil.pdparams"
    target = tmp_path / "executed"
    path.write_bytes(pickle.dumps({"generator": Evil(target)}))
    code, _, err = train("--data_path", data, "--output_dir", tmp_path / "out", flag, path)
    assert code == 2 and not target.exists()
    one_line(err, path, "open")


def test_pretrained_weights_start_a_new_run(train, data, tmp_path):
    flags = ["--data_path", data, "--iterations", 1, "--ema_decay", 0.5, "--ema_start", 0]
    assert train(*flags, "--output_dir", tmp_path / "first")[0] == 0
    path = tmp_path / "first" / "checkpoints" / "iter_0000001.pdparams"
    still = ["--g_lr", 0, "--d_lr", 0, "--seed", 5, "--pretrained_model", path]
    code, _, err = train(*flags, *still, "--output_dir", tmp_path / "second")
    assert code == 0, err
    first = weights.load(path)
    second = weights.load(tmp_path / "second" / "checkpoints" / "iter_0000001.pdparams")
    for network in ("generator", "discriminator"):
        for name, value in first[network].items():
            if name.endswith("weight_orig"):
                assert np.array_equal(value, second[network][name]), name
    for flag, begins_as in (("--use_ema", "generator_ema"), ("--no_ema", "generator")):
        out = tmp_path / flag
        assert train(*flags, *still, flag, "--output_dir", out)[0] == 0
        third = weights.load(out / "checkpoints" / "iter_0000001.pdparams")
        for name, value in first[begins_as].items():
            if name.endswith("weight_orig"):
                assert np.array_equal(value, third["generator"][name]), name
    del first["generator_ema"]
    path = tmp_path / "raw.pdparams"
    weights.save({k: first[k] for k in ("generator", "discriminator", "architecture")}, path)
    code, _, err = train(*flags, "--use_ema", "--pretrained_model", path, "--output_dir", tmp_path)
    assert code == 2 and "holds the raw generator only" in err


@pytest.mark.parametrize(
    "flags, named",
    [
        ("--amp fp16", "--amp fp16"),
        ("--dataset lsun", "--dataset lsun"),
        ("--imsize 48", "--imsize 48"),
        ("--g_attention 7", "--g_attention 7"),
        ("--device gpu:99", "--device gpu:99"),
        ("--centercrop --centercrop_size 33", "--centercrop_size 33"),
    ],
)
def test_impossible_flags(train, data, tmp_path, flags, named):
    code, _, err = train("--data_path", data, "--output_dir", tmp_path / "out", *flags.split())
    assert code == 2
    one_line(err, named)
