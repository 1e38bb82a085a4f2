"""What every parser of flags promises: whole numbers are exact, with a lower and an upper bound."""

import importlib

import pytest

from shared_metrics import __main__ as metrics
from shared_metrics.flags import Number
from shared_metrics.judges import __main__ as judges

ROOMS = ("CGAN", "DCGAN", "Pix2pix", "CycleGAN", "StarGAN", "AttGAN", "STGAN", "SPADE")


def parsers(paper):
    """{command: its parser} of every train.py, test.py and convert.py, built without parsing."""
    result = {}
    for folder in ("sagan", "acgan", "gaugan_simam"):
        modules = paper(folder)
        result[f"{folder} train"] = modules.train.parser()
        result[f"{folder} test"] = modules.test.parser()
    classic = paper("classic_gans")
    for name in ROOMS:
        room = classic.rooms.room(name)
        result[f"{name} train"] = classic.train.parser(name, room)
        way = importlib.import_module(classic.test.WAYS[room.KIND])
        result[f"{name} test"] = classic.test.parser(room, way)
    return result


def test_every_number_has_bounds(paper):
    """No flag reads its number by itself: `flags.Number` alone, or one of few choices."""
    for command, parser in parsers(paper).items():
        for action in parser._actions:
            if action.type in (int, float):
                assert action.choices, f"{command}: {action.option_strings}"
            elif isinstance(action.type, Number):
                for text in ("1e39", "1e999", "-1e39"):
                    with pytest.raises(SystemExit):
                        parser.parse_args([f"{action.option_strings[0]}={text}"])


def test_every_training_takes_several_processes(paper):
    for command, parser in parsers(paper).items():
        if command.endswith("train"):
            (action,) = [a for a in parser._actions if a.dest == "processes"]
            assert (action.default, action.type("auto"), action.type("2")) == (1, "auto", 2)


@pytest.mark.parametrize("flag", ["--batch_size 1e30", "--limit 1e12", "--keep -1"])
def test_the_shared_commands(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        metrics.parse_args(["stats", "x", "-o", "y", *flag.split()])
    assert stopped.value.code == 2 and "expected a whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        judges.parse_args("segmenter --data_path x --output y --label_nc 1e30".split())
