"""--version of every command: every Python file that reads flags by argparse."""

import ast

import pytest

from tests.conftest import ROOT, run_cli

FILES = [
    path
    for path in sorted(ROOT.glob("*/*.py")) + sorted(ROOT.glob("*/*/*.py"))
    if "tests" not in path.parts and not path.parts[len(ROOT.parts)].startswith(".")
]


def parsers(path):
    """How many parsers a file makes that show --help, and how many get --version."""
    made = 0
    given = 0
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = (
            getattr(node.func, "attr", getattr(node.func, "id", ""))
            if isinstance(node, ast.Call)
            else ""
        )
        words = {word.arg for word in node.keywords} if name else set()
        made += name == "ArgumentParser" and "add_help" not in words
        given += name == "version_flag"
    return made, given


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_parser_gets_the_flag(path):
    made, given = parsers(path)
    assert made <= given


def test_the_line(paper, capsys):
    for folder in ("sagan", "gaugan_simam"):
        with pytest.raises(SystemExit) as stopped:
            paper(folder).train.main(["--version"])
        line = capsys.readouterr().out
        assert not stopped.value.code and line.startswith("paddle-gan-papers 0.")
        assert "paddlepaddle" in line and "Python 3." in line and line.count("\n") == 1
    done = run_cli(".", "-m", "shared_metrics", "--version")
    assert done.stdout == line
    done = run_cli("classic_gans", "test.py", "--version")
    assert done.stdout.endswith(line)
