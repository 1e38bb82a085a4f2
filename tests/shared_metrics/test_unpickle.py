"""Hostile files: refused by name, nothing runs, and no small file fills the memory."""

import argparse
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import defaultdict, deque

import numpy as np
import pytest

from shared_metrics import weights
from shared_metrics.unpickle import Budget, Unpickler
from tests.conftest import ROOT
from tests.shared_metrics.handmade import (
    assert_same,
    dictionary,
    refusal,
    tensor,
    torch_legacy,
    torch_object,
    torch_zip,
)


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def evil_pickles(flag):
    """Pickles that would create the file `flag` if any of them ran."""
    command = f"touch {flag}"
    yield "system", pickle.dumps(Call(os.system, command))
    yield "eval", pickle.dumps(Call(eval, f"open({str(flag)!r}, 'w')"))
    yield "system", f"(S'{command}'\nios\nsystem\n.".encode()  # INST
    yield "system", f"(cos\nsystem\nS'{command}'\no.".encode()  # OBJ
    reduce = f"\x80\x02cos\nsystem\n(S'{command}'\ntR.".encode("latin1")
    yield "os.system", torch_zip(reduce)
    yield "os.system", torch_legacy(reduce)
    yield "subprocess.Popen", pickle.dumps(Call(subprocess.Popen, ["touch", str(flag)]))
    yield "builtins.getattr", pickle.dumps(Call(getattr, "", "format"))
    yield "numpy.dtype(V4)", pickle.dumps(np.zeros(2, [("a", "f4")]))
    zlib = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR."
    yield "_codecs.encode(zlib)", zlib
    yield "state for function", b"\x80\x02cnumpy\ndtype\n}b."
    yield "a number of 20000 bits", pickle.dumps(2**19999)
    # No escape codes on the user's terminal.
    yield "\\x1b[31m", b"\x80\x04\x8c\x02os\x8c\x08a\n\x1b[31mb\x93."


def test_hostile_pickles_are_refused_by_name_and_nothing_runs(tmp_path):
    flag = tmp_path / "flag"
    for name, content in evil_pickles(flag):
        message = refusal(tmp_path / "evil.pdparams", content)
        assert "refused" in message and name in message
        assert not flag.exists(), name


def test_the_hostile_pickle_would_have_worked(tmp_path):
    """The first of them does run under plain pickle: the test above tests something."""
    flag = tmp_path / "flag"
    pickle.loads(next(evil_pickles(flag))[1])
    assert flag.exists()


class Registry(dict):
    """A class of another program: its pickle has items and attributes."""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_of_other_programs_beside_the_weights_are_left_out(tmp_path, capsys, protocol):
    flag = tmp_path / "flag"
    registry = Registry(a=1)
    registry.more = [1]
    w = np.arange(3.0)
    content = {
        "args": argparse.Namespace(lr=0.1, w=w),
        "weights": {"w": w, "dtype": np.dtype("f4").type, "odd": np.zeros(2, [("a", "f4")])},
        "optimizer": [defaultdict(dict, {1: {"step": 2}}), deque([w]), {(1, 2): 3, "lr": 0.5}],
        "registry": registry,
        "random": random.Random(0),
        "hook": Call(os.system, f"touch {flag}"),
        "objects": np.array(["a", None], object),
    }
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(content, protocol))
    rest = [{1: {"step": 2}}, None, {"lr": 0.5}]
    expected = {"weights": {"w": w}, "optimizer": rest, "objects": ["a", None]}
    assert_same(weights.load(path), expected)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path}: left out objects of other programs (")
    assert "argparse.Namespace" in warning and warning.count("\n") == 1
    assert not flag.exists()


def declared_sizes():
    """Small files that declare, or multiply into, gigabytes, each with the reason to be given."""
    far = "unpacks to far more than its size"
    ends = "EOFError"
    zeros = torch_zip(torch_object(), {"0": ("", np.zeros(2**26, "u1"))}, zipfile.ZIP_DEFLATED)
    yield far, zeros
    expanded = tensor("FloatStorage", "0", 24, offset=0, size=(2**15, 2**15), stride=(0, 0))
    yield far, torch_zip(b"\x80\x02" + dictionary(w=expanded) + b".")
    doubling = b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60))
    yield far, b"\x80\x02]q\x00" + doubling + b"."  # 2**60 lists
    megabyte = b"B" + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x00"
    copies = b"cbuiltins\ntuple\n(h\x00tR0" * 2000
    yield far, b"\x80\x03" + megabyte + copies + b"N."
    yield ends, b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc."  # BYTEARRAY8
    yield ends, b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc."  # BINBYTES8
    yield ends, b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"]"  # FRAME
    three = pickle.dumps({"w": np.zeros(3)}, 2)
    huge = three.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")  # shape (2**31 - 1,)
    yield "buffer is too small", huge
    yield "do not fit its shape", three.replace(b"K\x03\x85", b"K\x02\x85")
    yield "nested too deeply", b"\x80\x02" + b"]" * 10**4 + b"a" * (10**4 - 1) + b"."
    # One byte of the file for each object, and copies of one set.
    yield far, b"\x80\x04" + b"\x8f" * 10**6 + b"."
    yield far, b"\x80\x04" + b"(" * 10**6 + b"."
    yield far, b"\x80\x04N" + b"\x94" * 10**6 + b"."
    many = b"\x80\x04\x8f(" + b"".join(b"M" + struct.pack("<H", i) for i in range(2**15))
    yield far, many + b"\x90q\x00" + b"cbuiltins\nset\n(h\x00tR0" * 5000 + b"N."
    # Keys that share one hash, and one whose hash takes a deep recursion.
    alike = [(2**61 - 1) * (i + 1) for i in range(10**5)]
    alike = b"".join(b"\x8a\x0a" + key.to_bytes(10, "little") + b"N" for key in alike)
    yield "an entry by a int", b"\x80\x02}(" + alike + b"u."
    yield "an entry by a tuple", b"\x80\x02})" + b"\x85" * 10**4 + b"Ns."
    yield "a key that", b"\x80\x02" + b"cbuiltins\nset\n(])" + b"\x85" * 10**4 + b"atR."
    deep = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n)" + b"\x85" * 10**4
    yield "a key that", torch_zip(deep + b"X\x03\x00\x00\x00cpuK\x01tQ.")
    # zipfile unpacks the whole of an entry by these methods before it counts.
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        lying = torch_zip(torch_object(), {"0": ("", np.zeros(2**26, "u1"))}, method)
        size = struct.pack("<I", 2**26)
        yield "other than deflate", lying.replace(size, struct.pack("<I", 96))
    encrypted = bytearray(torch_zip(torch_object()))
    for place in (encrypted.index(b"PK\x03\x04") + 6, encrypted.index(b"PK\x01\x02") + 8):
        encrypted[place] |= 1
    yield "encrypted", bytes(encrypted)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_declared_sizes_are_held_against_the_file(tmp_path):
    """In a process of 1.5 GB; the memo index of the last file would take C's unpickler 32 GB."""
    reasons = []
    for index, (reason, content) in enumerate(declared_sizes()):
        (tmp_path / f"{index:02}.pth").write_bytes(content)
        reasons.append(reason)
    (tmp_path / "memo").write_bytes(b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".")
    code = (
        "import resource, sys, pathlib\n"
        "from shared_metrics import weights\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29,) * 2)\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.pth')):\n"
        "    try: print('loaded', weights.load(path))\n"
        "    except weights.UserError as error: print(error)\n"
        "assert weights.load(sys.argv[1] + '/memo') is None\n"
    )
    command = [sys.executable, "-c", code, tmp_path]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    for line, reason in zip(child.stdout.splitlines(), reasons, strict=True):
        assert reason in line and ("damaged" in line or "refused" in line)


def test_many_small_objects_are_no_bomb(tmp_path):
    """As in a long log or list of files beside the weights."""
    content = {"pairs": [(i, i + 1) for i in range(30_000)], "log": [{"i": i} for i in range(9000)]}
    (tmp_path / "x.pth").write_bytes(pickle.dumps(content))
    assert weights.load(tmp_path / "x.pth") == content


def test_a_list_that_becomes_a_set_is_charged_as_one():
    """Each copy takes a set's memory, eight times that of a list."""
    thousand = b"](" + b"".join(b"M" + struct.pack("<H", i) for i in range(1000)) + b"eq\x00"
    budget = Budget(2**20)
    before = budget.left
    data = b"\x80\x02" + thousand + b"cbuiltins\nset\nh\x00\x85R."
    assert Unpickler(io.BytesIO(data), budget).load() == set(range(1000))
    assert before - budget.left > 60_000
