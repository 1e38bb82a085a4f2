"""Attacks that take minutes: kill -9, a full disk and flipped bits at many places in every paper,
and files that unpack to gigabytes. Run by `scripts/run_tests.sh --slow`.
"""

import io
import pickle
import random
import time
import zipfile

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS
from tests.contract.test_contract import assert_same_state, checkpoints, rows, start, wait_for

pytestmark = pytest.mark.slow

KILLS = 10
FLIPS = 300
SHARES = (0.01, 0.1, 0.3, 0.6, 0.9, 0.99)  # of a checkpoint that the disk has room for
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (@BYTES@, @BYTES@))
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(params=list(PAPERS))
def run(request, tmp_path):
    """(the paper, its data, a folder for outputs)."""
    spec = PAPERS[request.param]
    return spec, spec.data(tmp_path), tmp_path


def test_killed_at_many_moments_it_ends_as_if_it_never_was(run):
    """From the start of the process on, so that the first moments of a run and of a save count."""
    spec, data, tmp = run
    rng = random.Random(0)
    out = tmp / "killed"
    for _ in range(KILLS):
        had = len(checkpoints(out))
        process = start(spec.folder, spec.flags(data, out, 100_000, resume="auto"))
        if rng.random() < 0.7:
            wait_for(lambda had=had: len(checkpoints(out)) > had, process)
        time.sleep(rng.random())
        process.kill()
        process.wait()
        for path in checkpoints(out)[-2:]:
            checkpoint.load_checkpoint(path)
    last = len(checkpoints(out)) + 1
    run_cli(spec.folder, *spec.flags(data, out, last, resume="auto"))
    run_cli(spec.folder, *spec.flags(data, tmp / "whole", last), timeout=600)
    assert_same_state(checkpoints(out)[-1], checkpoints(tmp / "whole")[-1])
    assert rows(out) == rows(tmp / "whole")
    assert not list((out / "checkpoints").glob(".*"))


def test_a_disk_full_at_any_place_loses_nothing(run):
    spec, data, tmp = run
    out = tmp / "full"
    run_cli(spec.folder, *spec.flags(data, out, 1))
    first = checkpoints(out)[0]
    kept = files.file_sha256(first)
    for share in SHARES:
        code = LIMITED.replace("@BYTES@", str(int(share * first.stat().st_size)))
        flags = spec.flags(data, out, 2, resume="auto")
        failed = run_cli(spec.folder, "-c", code, *flags, code=2)
        assert "Traceback" not in failed.stderr and "cannot be written" in failed.stderr
        assert checkpoints(out) == [first] and files.file_sha256(first) == kept
        assert not list((out / "checkpoints").glob(".*"))
    run_cli(spec.folder, *spec.flags(data, out, 2, resume="auto"))


def test_a_flipped_bit_anywhere_is_noticed(run):
    spec, data, tmp = run
    run_cli(spec.folder, *spec.flags(data, tmp / "out", 1))
    path = checkpoints(tmp / "out")[0]
    whole = path.read_bytes()
    contents = files.digest(weights.load(path))
    rng = random.Random(0)
    damaged = tmp / "damaged.pdparams"
    noticed = 0
    # Its beginning, its end and its pickle's structure as often as the arrays between.
    for place in [*range(FLIPS // 3), *rng.sample(range(len(whole)), FLIPS)]:
        for byte in (place, len(whole) - 1 - place):
            flipped = bytearray(whole)
            flipped[byte] ^= 1 << rng.randrange(8)
            damaged.write_bytes(flipped)
            try:
                state = checkpoint.load_checkpoint(damaged)
            except UserError:
                noticed += 1
            else:  # of the pickle's own words, such as the length of a frame
                sha256 = weights.load(damaged)["sha256"]
                assert files.digest({**state, "sha256": sha256}) == contents
    assert noticed > FLIPS


# ---- files that unpack to gigabytes ----

GIB = 2**30
ROOM = 3 * GIB  # of a process that reads one, its libraries among it
READ = """
import resource, sys, time
sys.path.insert(0, "@ROOT@")
from shared_metrics import array_files, weights
from shared_metrics.errors import UserError
resource.setrlimit(resource.RLIMIT_AS, (@BYTES@, @BYTES@))
read = array_files.read if sys.argv[1].endswith((".npy", ".npz")) else weights.load
began = time.process_time()
try:
    read(sys.argv[1])
except UserError as error:
    print(error)
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def packed(path, name, before=b"", count=2 * GIB):
    """A zip file with an entry of `before` and zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(name, "w", force_zip64=True) as entry:
            entry.write(before)
            for _ in range(count // 2**20):
                entry.write(bytes(2**20))


def npz(path):
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (2 * GIB,)}
    np.lib.format.write_array_header_2_0(header, about)
    packed(path, "x.npy", header.getvalue())


def torch_zip(path):
    packed(path, "archive/data.pkl")


def copies(path):
    """A pickle that makes one set of 1,000 entries again and again."""
    entries = b"".join(pickle.BININT2 + i.to_bytes(2, "little") for i in range(1000))
    again = b"c__builtin__\nset\nh\x00\x85R"  # set(what is kept under 0)
    path.write_bytes(b"\x80\x02(](" + entries + b"eq\x00" + again * 300_000 + b"l.")


def empty_sets(path):
    path.write_bytes(b"\x80\x04](" + pickle.EMPTY_SET * 10_000_000 + b"e.")


def deep(path):
    path.write_bytes(b"\x80\x04" + b"]" * 5_000_000 + b"a" * 4_999_999 + b".")


def many_keys(path):
    """Numbers that would share one hash."""
    keys = b"".join(
        pickle.LONG1 + b"\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N"
        for i in range(1, 300_000)
    )
    path.write_bytes(b"\x80\x04}(" + keys + b"u.")


BOMBS = {
    "x.npz": npz,
    "x.pth": torch_zip,
    "copies.pdparams": copies,
    "sets.pdparams": empty_sets,
    "deep.pdparams": deep,
    "keys.pdparams": many_keys,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unpacks_to_gigabytes_is_refused_before(name, tmp_path):
    path = tmp_path / name
    BOMBS[name](path)
    code = READ.replace("@ROOT@", str(ROOT)).replace("@BYTES@", str(ROOM))
    done = run_cli(tmp_path, "-c", code, path, timeout=300)
    said, measured = done.stdout.splitlines()
    seconds, kib = map(float, measured.split())
    assert str(path) in said and "memory" not in said
    assert seconds < 60 and kib * 1024 < GIB // 2 + 32 * path.stat().st_size
