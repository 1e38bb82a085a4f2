"""Both languages of every README: the same commands, pictures and tables, and links that lead
somewhere.
"""

import re

import pytest

from tests.conftest import ROOT
from tests.readmes.commands import commands

READMES = sorted(path.parent.relative_to(ROOT) for path in ROOT.glob("**/README.md"))
READMES = [folder for folder in READMES if not folder.parts or folder.parts[0][0] != "."]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def parts(path):
    """What both languages have in common: pictures, and the number of rows of each table."""
    text = path.read_text("utf-8")
    tables = [len(rows.splitlines()) for rows in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text), tables


@pytest.mark.parametrize("folder", READMES, ids=str)
def test_both_languages_say_the_same(folder):
    english = ROOT / folder / "README.md"
    chinese = ROOT / folder / "README_cn.md"
    assert commands(chinese.relative_to(ROOT)) == commands(english.relative_to(ROOT))
    assert parts(chinese) == parts(english)
    first = english.read_text("utf-8").splitlines()[:6], chinese.read_text("utf-8").splitlines()[:6]
    assert "README_cn.md" in str(first[0]) and "README.md" in str(first[1])


@pytest.mark.parametrize("name", ["README.md", "README_cn.md"])
@pytest.mark.parametrize("folder", READMES, ids=str)
def test_links_lead_somewhere(folder, name):
    for target, _ in LINK.findall((ROOT / folder / name).read_text("utf-8")):
        if not re.match(r"\w+:", target):
            assert (ROOT / folder / target).exists(), target
