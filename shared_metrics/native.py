"""Errors of Paddle's native code: what they say in one line, and which of them are no bugs.

Paddle raises Python's own exceptions, told apart by a word before the sentence: "(Unavailable)
Cannot open ...", or "UnavailableError: ..." with the stack. Of a user's machine speak those of
files, memory and drivers; the others, such as "(InvalidArgument)", are bugs of ours.
"""

import errno
import os
import re

from shared_metrics import fluid_files
from shared_metrics.files import shown, unwritable

PROGRAMS = (".json", ".pdmodel")  # of Paddle 3 and 2
MACHINE = "ResourceExhausted|Unavailable|External"
SENTENCE = re.compile(rf"(?:\((?:{MACHINE})\)|\b(?:{MACHINE})Error:)\s*([^\n]+)")
FILES = re.compile(r"\b(open|read|write|save|load)\b")
# What CUDA says of a kernel that is at fault itself.
FAULTS = re.compile(r"illegal|misaligned|assert|launch failure")


def reason(error):
    """What an error says, without Paddle's stack and hints, as one line of at most 300 letters."""
    sentence = SENTENCE.search(str(error))
    text = sentence[1] if sentence else " ".join(str(error).split())
    return shown(text)[:300] or type(error).__name__


def of_machine(error):
    """Whether the machine is the cause of an error (a full disk, memory, a driver), not a bug."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno is not None or not FAULTS.search(reason(error))
    sentence = SENTENCE.search(str(error))
    return isinstance(error, RuntimeError) and bool(sentence and FILES.search(sentence[1]))


def save_program(layer, prefix, specs=None):
    """Write a layer with weights as PREFIX.pdiparams and the program beside it.

    Returns: the program's file. Raises: UserError with the free space on a full disk, which Paddle
        does not notice: it writes what there is room for.
    """
    import paddle

    try:
        paddle.jit.save(layer, str(prefix), input_spec=specs)
        program = next(p for p in map(prefix.with_suffix, PROGRAMS) if p.is_file())
        weights = prefix.with_suffix(".pdiparams")
        cut = program.suffix == ".json" and not program.read_bytes().endswith(b"}")
        if cut or not weights.stat().st_size or not fluid_files.is_whole(weights):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except (OSError, RuntimeError) as error:
        if not of_machine(error):
            raise
        raise unwritable(prefix, getattr(error, "strerror", None) or reason(error)) from error
    return program
