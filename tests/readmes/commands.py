"""The commands of a README, taken out of its bash blocks and run in this process: toy data in the
place of its paths, networks of a few channels, two iterations.
"""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from shared_metrics import process
from tests.conftest import ROOT

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.S | re.M)
# What bash makes of a block's lines, without running them: each command's words go to file 9.
PROGRAMS = ("python", "python3", "pip", "bash", "source", "visualdl", "cd")
STAND_INS = "".join(
    f'{name}() {{ printf "%s\\0" {name} "$@" >&9; printf "\\n\\0" >&9; }}\n' for name in PROGRAMS
)
# Not run: what installs, downloads, serves until it is stopped, runs all there is for minutes, or
# needs ImageNet weights of 100 MB.
NOT_RUN = re.compile(
    r"(pip|source|visualdl|cd) |python3? -m venv |.* --classifier_model |"
    r"python (demo|download)\.py |"
    r"bash (scripts/(quickstart|run_tests|run_all)|\.\./scripts/train_acgan_groups)\.sh"
)

# Numbers of pictures and iterations, as swaps of a World.
LONG = {r"^\d{4,}$": "4", r"^0-99$": "0,1", r"^0-9$": "0,1"}
# Words of commands that need Inception's weights.
INCEPTION = re.compile(
    r".*--metrics (\w+,)*(fid|is|kid|pr)\b|(fid|is|kid|pr) |stats (?!.*--network efficientnet)"
    r"|evaluate (?!.*--metrics)"
)


def commands(readme):
    """Every command of a README's bash blocks as a list of words, in its order.

    Args: readme, its path from the root.
    """
    found = []
    for block in BLOCK.findall((ROOT / readme).read_text("utf-8")):
        words = []
        for word in words_of(block):
            if word == "\n":
                found.append(words)
                words = []
            else:
                words.append(word)
    return found


def words_of(block):
    """The words of a block's commands as bash reads them, "\\n" after each command."""
    # `cmd > file` and the like only write into a folder that is thrown away.
    script = 'd=$(mktemp -d) && builtin cd "$d" || exit 1\n' + STAND_INS + block + '\nrm -r "$d"\n'
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        done = subprocess.run(
            ["bash", "-c", f"exec 9>&{writing}; {script}"],
            pass_fds=[writing],
            capture_output=True,
            text=True,
        )
        os.close(writing)
        text = pipe.read().decode()
    assert done.returncode == 0 and not done.stderr, f"{block}\n{done.stderr}"
    return text.split("\0")[:-1]


def runnable(readme):
    """The commands of a README that are run here."""
    return [words for words in commands(readme) if not NOT_RUN.match(" ".join(words) + " ")]


def name_of(words):
    """A short name of a command, for the test's."""
    return re.sub(r"[^\w.=-]+", "-", " ".join(words))[:60]


@dataclass
class World:
    """Where a README's commands run, and what stands in the place of what they name.

    Args:
        folder: the README's, from the root.
        place: an empty folder, the working directory.
        swaps: {regular expression: its replacement}, applied to every word of a command.
        more: {module's name: flags to add, or function of a command's words that gives them}, by
            which it takes a blink.
        output: where train.py writes if not told; removed before one that does not resume.
    """

    folder: str
    place: Path
    swaps: dict
    more: dict = field(default_factory=dict)
    output: tuple = ()

    def run(self, words, paper):
        """The exit code of a command, run as process.command does. Args: paper, the fixture."""
        main, name, words = self.find(words, paper)
        for pattern, new in self.swaps.items():
            words = [re.sub(pattern, new, word) for word in words]
        if name == "train" and "--resume" not in words:
            named = words[words.index("--output_dir") + 1 :][:1] if "--output_dir" in words else ()
            for path in map(self.place.joinpath, (*self.output, *named)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        more = self.more.get(name, "")
        words += (more(words) if callable(more) else more).split()
        if "--inception_weights" not in words and INCEPTION.match(" ".join(words)):
            words += ["--inception_weights", "random"]
        try:
            process.command(main)(words)
        except SystemExit as end:
            return end.code or 0
        return 0

    def find(self, words, paper):
        """(main function, its module's name, its words) of a command."""
        program, *words = words
        assert program == "python", program
        if words[:2] == ["-m", "paddle.distributed.launch"]:  # what it starts, by itself
            words = words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]
        if words[0] == "-m":
            module = importlib.import_module(words[1])
            if hasattr(module, "__path__"):
                module = importlib.import_module(f"{words[1]}.__main__")
            return module.main, words[1], words[2:]
        places = [(ROOT / folder / words[0]).resolve() for folder in (self.folder, "")]
        script = next((path for path in places if path.is_file()), None)
        assert script, f"{words[0]}: no such program"
        if script.parent == ROOT / self.folder and self.folder:
            return getattr(paper(self.folder), script.stem).main, script.stem, words[1:]
        if script.is_relative_to(ROOT / "shared_metrics"):
            name = ".".join(script.relative_to(ROOT).with_suffix("").parts)
            return importlib.import_module(name).main, name.removesuffix(".__main__"), words[1:]
        spec = importlib.util.spec_from_file_location(script.stem, script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[script.stem] = module
        spec.loader.exec_module(module)
        return module.main, script.stem, words[1:]
