"""Hostile files: refused by name, nothing runs, and no small file fills the memory."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.shared_metrics.handmade import (
    dictionary,
    refusal,
    tensor,
    torch_legacy,
    torch_object,
    torch_zip,
)


def evil_pickles(flag):
    """Pickles that would create the file `flag` if any of them ran."""
    command = f"touch {flag}"

    class Call:
        def __init__(self, function, *arguments):
            self.call = (function, arguments)

        def __reduce__(self):
            return self.call

    system = Call(os.system, command)
    evaluate = Call(eval, f"open({str(flag)!r}, 'w')")
    yield "system", pickle.dumps(system)
    yield "system", pickle.dumps({"G": {"w": np.zeros(2), "x": [(system,)]}})
    yield "eval", pickle.dumps(evaluate)
    yield "eval", pickle.dumps(Call(tuple, [evaluate]), 2)
    yield "system", f"(S'{command}'\nios\nsystem\n.".encode()  # INST
    yield "system", f"(cos\nsystem\nS'{command}'\no.".encode()  # OBJ
    reduce = f"\x80\x02cos\nsystem\n(S'{command}'\ntR.".encode("latin1")
    yield "os.system", torch_zip(reduce)
    yield "os.system", torch_legacy(reduce)
    yield "subprocess.Popen", pickle.dumps(Call(subprocess.Popen, ["touch", str(flag)]))
    yield "builtins.getattr", pickle.dumps(Call(getattr, "", "format"))
    yield "numpy.dtype(O8)", pickle.dumps({"w": np.array([None])})
    yield "numpy.dtype", pickle.dumps(np.zeros(2, [("a", "f4")]))
    zlib = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR."
    yield "_codecs.encode(zlib)", zlib
    yield "state for type", b"\x80\x02cnumpy\ndtype\n}b."
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
    yield "recursion", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_declared_sizes_are_held_against_the_file(tmp_path):
    """In a process of 1.5 GB; the memo index of the last file would take C's unpickler 32 GB."""
    reasons = []
    for index, (reason, content) in enumerate(declared_sizes()):
        (tmp_path / f"{index}.pth").write_bytes(content)
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
        assert "damaged" in line and reason in line
