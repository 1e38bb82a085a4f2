"""Rooms by name, and the flags of their training without the entry points."""

import argparse
import importlib

from shared_metrics import flags


def parse(trainer, output_dir, *words):
    """The flags of a room, as train.py makes them: what all rooms share, what every run has, its
    own. Args: trainer, its module; words, the command line.
    """
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    for name in ("dataset", "train_list", "test_list", "recipe"):
        add(f"--{name}", default="")
    add("--data_dir", default="./data")
    add("--batch_size", type=int, default=1)
    add("--epoch", type=int, default=200)
    add("--iterations", type=int, default=0)
    add("--image_size", type=int, default=286)
    add("--crop_size", type=int, default=256)
    add("--crop_type", default="Centor")
    add("--learning_rate", type=float, default=2e-4)
    for name in ("shuffle", "save_checkpoints", "run_test"):
        add(f"--{name}", action=flags.YES_NO, default=True)
    flags.run_flags(parser, name="toy", output_dir=str(output_dir))
    parser.set_defaults(sample_every=0, save_every=0, num_workers=0)
    trainer.add_flags(parser)
    args = flags.with_recipe(parser, {}, [str(word) for word in words])
    return args


def load(paper, name):
    """(model, trainer) of a room, loaded anew."""
    paper("classic_gans")
    return [importlib.import_module(f"{name}.{part}") for part in ("model", "trainer")]
