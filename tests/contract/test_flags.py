"""What every parser of flags promises: whole numbers are exact, with a lower and an upper bound."""

import importlib

import pytest

from shared_metrics import __main__ as metrics
from shared_metrics import needs, testing
from shared_metrics.errors import UserError
from shared_metrics.flags import RUN_NEEDS, Number
from shared_metrics.judges import __main__ as judges

ROOMS = ("CGAN", "DCGAN", "Pix2pix", "CycleGAN", "StarGAN", "AttGAN", "STGAN", "SPADE")


def commands(paper):
    """(command, its parser, its table of what flags need) of every train.py and test.py."""
    for folder in ("sagan", "acgan", "gaugan_simam"):
        modules = paper(folder)
        yield f"{folder} train", modules.train.parser(), RUN_NEEDS | modules.train.NEEDS
        yield f"{folder} test", modules.test.parser(), testing.TEST_NEEDS | modules.test.NEEDS
    classic = paper("classic_gans")
    for name in ROOMS:
        room = classic.rooms.room(name)
        table = RUN_NEEDS | classic.train.NEEDS | getattr(room, "NEEDS", {})
        yield f"{name} train", classic.train.parser(name, room), table
        way = importlib.import_module(classic.test.WAYS[room.KIND])
        yield f"{name} test", classic.test.parser(room, way), testing.TEST_NEEDS | way.NEEDS


def test_every_number_has_bounds(paper):
    """No flag reads its number by itself: `flags.Number` alone, or one of few choices."""
    for command, parser, _ in commands(paper):
        for action in parser._actions:
            if action.type in (int, float):
                assert action.choices, f"{command}: {action.option_strings}"
            elif isinstance(action.type, Number):
                for text in ("1e39", "1e999", "-1e39"):
                    with pytest.raises(SystemExit):
                        parser.parse_args([f"{action.option_strings[0]}={text}"])


def test_every_training_takes_several_processes(paper):
    for command, parser, _ in commands(paper):
        if command.endswith("train"):
            (action,) = [a for a in parser._actions if a.dest == "processes"]
            assert (action.default, action.type("auto"), action.type("2")) == (1, "auto", 2)


def test_every_flag_of_the_tables_is_there_and_is_refused_alone(paper):
    for command, parser, table in commands(paper):
        actions = {action.dest: action for action in reversed(parser._actions)}
        for flag, conditions in table.items():
            name, *values = flag.split()
            named = {condition.split()[0] for condition in conditions.split(", ")}
            assert {name, *named} <= actions.keys(), f"{command}: {flag}"
            words = [word_for(actions[name], values)]
            args = parser.parse_args(words)
            if not all(needs._holds(args, condition) for condition in conditions.split(", ")):
                told = f"{actions[name].option_strings[0]}: has no effect"
                with pytest.raises(UserError, match=told):
                    needs.check(args, needs.given(parser, words), {flag: conditions})


def word_for(action, values):
    """A word that gives a flag one of the values, or any."""
    word = action.option_strings[0]
    if action.nargs == 0:
        return word
    choices = [value for value in action.choices or () if value]
    number = str(max(action.type.least, 0.5)) if isinstance(action.type, Number) else "0,1,1"
    if getattr(action.type, "kind", None) is int:
        number = "2"
    return f"{word}={[*values, *choices, number][0]}"


@pytest.mark.parametrize("flag", ["--batch_size 1e30", "--limit 1e12", "--keep -1"])
def test_the_shared_commands(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        metrics.parse_args(["stats", "x", "-o", "y", *flag.split()])
    assert stopped.value.code == 2 and "expected a whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        judges.parse_args("segmenter --data_path x --output y --label_nc 1e30".split())
