"""Weights files: what is read, what is refused, and that a save never harms the file before it."""

import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.torch_files import LEGACY_MAGIC
from tests.conftest import ROOT
from tests.shared_metrics.handmade import (
    assert_same,
    refusal,
    torch_legacy,
    torch_object,
    torch_zip,
)


def state():
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    args = {"lr": 1e-4, "name": "目录 ü", "sizes": [1, 2], "pair": (3, "x")}
    return {
        "generator": {"conv.weight": weight, "bn._mean": np.zeros(3)},
        "ids": np.array([[1, -2]], dtype=np.int64),
        "iteration": 7,
        "args": args | {"none": None, "on": True},
        b"data": b"\x00\xff",
    }


# ---- our own files and Paddle's


def test_save_and_load_give_back_the_same(tmp_path):
    path = tmp_path / "目录 ü.pdparams"
    weights.save(state(), path)
    loaded = weights.load(path)
    assert_same(loaded, state())
    assert files.digest(loaded) == files.digest(state())
    loaded["ids"][:] = 0  # writable
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(10)[::3],
        "big_endian": np.arange(3, dtype=">i2"),
        "scalar": np.float32(0.5),
        "0-d": np.array(3),
        "empty": np.zeros((0, 4)),
        "bool": np.array([True, False]),
        "text": np.array(["ab", "c"]),
        "bytes": b"\x80",
        "no_bytes": b"",
    }
    path = tmp_path / "stats.pkl"
    path.write_bytes(pickle.dumps(OrderedDict(arrays), protocol))
    loaded = weights.load(path)
    assert type(loaded) is dict and type(loaded["scalar"]) is float
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["big_endian"].dtype == np.dtype("i2") and loaded["fortran"].flags.c_contiguous


def test_pickle_of_python_2_has_bytes_keys(tmp_path):
    """CIFAR's own files: protocol 2 of Python 2, str as SHORT_BINSTRING, numpy's dtype code too."""
    raw = b"\x80\x02}q\x00(U\x04dataq\x01"
    raw += b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
    raw += b"\x87Rq\x04"
    raw += b"(K\x01K\x01K\x02\x86"  # version 1, shape (1, 2)
    raw += b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06"
    raw += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # the dtype's state
    raw += b"\x89U\x02\x07\xfftb"  # not in Fortran's order; the bytes
    raw += b"U\x06labelsq\x07]q\x08(K\x06K\x09eu."
    path = tmp_path / "data_batch_1"
    path.write_bytes(raw)
    expected = {b"data": np.array([[7, 255]], dtype=np.uint8), b"labels": [6, 9]}
    assert_same(weights.load(path), expected)


def test_paddle_reads_ours_and_we_read_paddles(tmp_path):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4))
    arrays = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}

    paddle.save(layer.state_dict(), str(tmp_path / "flat.pdparams"))
    # Without "StructuredToParameterName@@".
    assert_same(weights.load(tmp_path / "flat.pdparams"), arrays)

    # Within a dict, Paddle saves tensors as (name, array) pairs.
    nested = {"G": layer.state_dict(), "step": 3, "z": paddle.ones([2])}
    paddle.save(nested, str(tmp_path / "nested.pdparams"))
    loaded = weights.load(tmp_path / "nested.pdparams")
    assert_same(loaded, {"G": arrays, "step": 3, "z": np.ones(2, np.float32)})

    weights.save({"G": arrays, "step": 3}, tmp_path / "ours.pdparams")
    theirs = paddle.load(str(tmp_path / "ours.pdparams"), return_numpy=True)
    assert_same(theirs, {"G": arrays, "step": 3})
    layer.set_state_dict(paddle.load(str(tmp_path / "ours.pdparams"))["G"])


@pytest.mark.parametrize(
    "value", [np.array([None]), object(), {1: [lambda: 0]}, np.zeros(2, [("a", "f4")])]
)
def test_save_refuses_what_load_would_refuse(tmp_path, value):
    with pytest.raises(ValueError, match="args.bad"):
        weights.save({"args": {"bad": value}}, tmp_path / "x.pdparams")
    assert os.listdir(tmp_path) == []


def test_safetensors(tmp_path):
    header = (
        b'{"__metadata__":{"format":"pt"},'
        b'"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
        b'"b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},'
        b'"n":{"dtype":"I64","shape":[],"data_offsets":[12,20]}}'
    )
    w = np.array([1.5, -2], "<f4").tobytes()
    b = np.array([0x3F80, 0xC000], "<u2").tobytes()
    content = struct.pack("<Q", len(header)) + header + w + b + struct.pack("<q", 9)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    w = np.array([[1.5], [-2]], np.float32)
    expected = {"w": w, "b": np.array([1, -2], np.float32), "n": np.array(9)}
    assert_same(weights.load(path), expected)
    assert "damaged" in refusal(path, content[:-1])


# ---- damaged files


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "G.pdparams"
    weights.save(state(), path)
    whole = path.read_bytes()
    for cut in (1, 2, 20, len(whole) // 2, len(whole) - 1):
        assert "cut" in refusal(path, whole[:cut])
    packed = torch_zip(torch_object())
    for cut in (3, 100, len(packed) - 1):
        assert "cut" in refusal(path, packed[:cut])
    stream = torch_legacy(torch_object(legacy=True))
    for cut in (len(LEGACY_MAGIC), len(stream) - 30, len(stream) - 1):
        assert "cut" in refusal(path, stream[:cut])
    assert "empty" in refusal(path, b"")
    assert "web page" in refusal(path, b"\n <!DOCTYPE html><html>404</html>")
    assert "compressed" in refusal(path, b"\xfd7zXZ\x00\x00")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    assert "a Git LFS pointer" in refusal(path, pointer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", "x")
    assert "data.pkl" in refusal(path, path.read_bytes())
    with pytest.raises(UserError, match=r"missing\.pth.*No such file"):
        weights.load(tmp_path / "missing.pth")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: cannot be read .no regular file"):
        weights.load(tmp_path / "pipe")
    with pytest.raises(UserError, match="a folder, not a file; give the weights' own"):
        weights.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for number in (9_999_999, 10_000_000):
        (tmp_path / "checkpoints" / f"iter_{number}.pdparams").touch()
    with pytest.raises(UserError, match="the newest: .*/checkpoints/iter_10000000.pdparams$"):
        weights.load(tmp_path)


def test_a_flipped_bit_changes_the_digest(tmp_path):
    path = tmp_path / "G.pdparams"
    weights.save(state(), path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(5).tobytes()) + 1] ^= 1  # inside conv.weight
    path.write_bytes(content)
    assert files.digest(weights.load(path)) != files.digest(state())


def test_digest_sees_everything_but_the_order_of_keys():
    one = files.digest(state())
    assert files.digest(dict(reversed(list(state().items())))) == one
    changes = [
        lambda s: s["args"].update(lr=np.nextafter(1e-4, 1)),
        lambda s: s["args"].update(on=1),
        lambda s: s["args"].update(sizes=(1, 2)),
        lambda s: s.update(ids=s["ids"].astype(np.int32)),
        lambda s: s.update(ids=s["ids"].T),
        lambda s: s["generator"].update({"conv.weights": s["generator"].pop("conv.weight")}),
        lambda s: s.update(more=None),
    ]
    digests = {one}
    for index, change in enumerate(changes):
        changed = state()
        change(changed)
        digests.add(files.digest(changed))
        assert len(digests) == index + 2
    assert files.digest({"a": [1, 2], "b": [3]}) != files.digest({"a": [1], "b": [2, 3]})
    # Layout in memory is no content, and checkpoints on disk rest on this very number.
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    strided = np.repeat(array, 2, axis=1)[:, ::2]
    same = [array, np.asfortranarray(array), array.astype(">f4"), strided]
    expected = "1ad8b0c23c05a3bf989c01f93b6b8dfb0cec18cbae9a68890c7efaf4503bc627"
    assert {files.digest({"w": value, "n": np.float64(2)}) for value in same} == {expected}


def test_file_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.file_sha256(tmp_path / "x") == expected


# ---- saving


def test_full_disk_leaves_the_old_file(tmp_path):
    """RLIMIT_FSIZE stands for the full disk: writing past 100 kB fails as on one."""
    pytest.importorskip("resource")
    path = tmp_path / "G.pdparams"
    weights.save(state(), path)
    code = (
        "import resource, sys, numpy as np\n"
        "from shared_metrics import files, images, weights\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype('u1')\n"
        "for save, content in ((weights.save, {'w': np.zeros(10**5)}), (images.save_png, noise),\n"
        "                      (files.save_json, ['x' * 10**6])):\n"
        "    args = (noise, sys.argv[1]) if save is images.save_png else (content, sys.argv[1])\n"
        "    try: save(*args)\n"
        "    except weights.UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, path]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = child.stdout.splitlines()
    assert len(lines) == 3, child.stderr
    for line in lines:
        assert line.startswith(f"{path}: cannot be written (File too large; ")
        assert "MiB free" in line
    assert_same(weights.load(path), state())
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_during_a_save_leaves_a_whole_file(tmp_path):
    path = tmp_path / "G.pdparams"
    code = (
        "import sys, itertools, numpy as np\n"
        "from shared_metrics import files, weights\n"
        "for i in itertools.count(): weights.save({'w': np.full(10**6, i), 'i': i}, sys.argv[1])\n"
    )
    draw = random.Random(0)
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT)
        try:
            deadline = time.monotonic() + 30
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        loaded = weights.load(path)
        assert (loaded["w"] == loaded["i"]).all() and loaded["w"].shape == (10**6,)
        path.unlink()


def test_atomic_path_on_failure_and_success(tmp_path):
    path = tmp_path / "out.png"
    path.write_text("old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), files.atomic_path(path) as temporary:
            assert temporary.parent == tmp_path and temporary.suffix == ".png" and temporary != path
            temporary.write_text("half")
            raise error
        assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.png"]
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["out.png"]


def test_save_where_nothing_can_be_written(tmp_path):
    with pytest.raises(UserError, match=r"no/G\.pdparams: cannot be written"):
        weights.save({}, tmp_path / "no" / "G.pdparams")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written"):
        weights.save({}, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_save_json(tmp_path):
    path = tmp_path / "args.json"
    files.save_json({"name": "ü", "lr": 1e-4}, path)
    assert path.read_text(encoding="utf-8") == '{\n  "name": "ü",\n  "lr": 0.0001\n}\n'
    with pytest.raises(ValueError):
        files.save_json({"fid": float("nan")}, path)
    assert "ü" in path.read_text(encoding="utf-8")


# ---- into a network


def test_check_keys_lists_every_problem():
    expected = {f"layer{i}.weight": (2, 3) for i in range(12)}
    good = {name: np.zeros((2, 3)) for name in expected}
    names = {"what": "generator", "source": "G.pth"}
    weights.check_keys(expected, good, **names)
    bad = {f"other{i}": 0 for i in range(9)} | {"layer11.weight": np.zeros((3, 2)), "\x1b[31m\n": 1}
    with pytest.raises(UserError) as caught:
        weights.check_keys(expected, bad, **names)
    message = str(caught.value)
    start = "G.pth: does not fit the generator (12 entries): 11 missing (layer0.weight, "
    assert message.startswith(start)
    assert "layer7.weight, ...)" in message and "layer8.weight" not in message
    assert "10 unexpected (other0, " in message
    assert "1 of another shape (layer11.weight: file (3, 2), network (2, 3))" in message
    assert message.isprintable()
    with pytest.raises(UserError, match=r"G\.pth: holds a list"):
        weights.check_keys(expected, [1], **names)


def test_load_into_is_all_or_nothing():
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
    before = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}
    full = {name: np.full(array.shape, 2, np.float64) for name, array in before.items()}

    wrong = dict(full, **{"0.weight": np.zeros((3, 2))})
    del wrong["1._mean"]
    message = r"1 missing \(1\._mean\); 1 of another shape \(0\.weight: file \(3, 2\), "
    with pytest.raises(UserError, match=message):
        weights.load_into(layer, wrong, what="generator", source="G.pth")
    assert_same({name: tensor.numpy() for name, tensor in layer.state_dict().items()}, before)

    weights.load_into(layer, full, what="generator", source="G.pth")  # float64 into float32
    full["0.weight"][:] = 9  # a copy was taken
    for tensor in layer.state_dict().values():
        assert tensor.dtype == paddle.float32 and (tensor.numpy() == 2).all()


@pytest.mark.parametrize(
    "name, value, fault",
    [
        ("0.weight", np.nan, "NaN or infinite"),
        ("0.bias", 1e300, "NaN or infinite"),  # in float32
        ("1._variance", -1e-3, "a negative variance"),
    ],
)
def test_load_into_refuses_numbers_that_no_network_has(name, value, fault):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
    state = {key: np.ones(tensor.shape) for key, tensor in layer.state_dict().items()}
    state[name].flat[1] = value
    with pytest.raises(UserError, match=f"^G.pth: {name} of the generator holds {fault}"):
        weights.load_into(layer, state, what="generator", source="G.pth")
    state[name] = ["1.5", "2.5", "3.5"]
    with pytest.raises(UserError, match=rf"G.pth: .* 1 without numbers \({name}\)"):
        weights.load_into(layer, state, what="generator", source="G.pth")


def test_a_file_that_memory_is_too_small_for_is_not_called_damaged(tmp_path, monkeypatch):
    def full(*args):
        raise MemoryError

    weights.save({"w": np.zeros(4)}, tmp_path / "G.pdparams")
    monkeypatch.setattr(weights, "plain", full)
    with pytest.raises(UserError, match="G.pdparams: does not fit into the memory"):
        weights.load(tmp_path / "G.pdparams")


def test_build_compares_before_it_takes_memory():
    """4 TB here, of which a file of 24 bytes tells."""
    paddle = pytest.importorskip("paddle")
    state = {"weight": np.ones((2, 3), np.float32)}
    with pytest.raises(UserError, match=r"G\.pth: .* network \(1000000, 1000000\)"):
        weights.build(
            lambda: paddle.nn.Linear(10**6, 10**6, bias_attr=False), state, "generator", "G.pth"
        )
    layer = weights.build(
        lambda: paddle.nn.Linear(2, 3, bias_attr=False), state, "generator", "G.pth"
    )
    assert (layer.weight.numpy() == 1).all()


def test_the_modules_import_neither_paddle_nor_torch():
    code = "import sys, shared_metrics.weights, shared_metrics.images\n"
    code += "assert not {'paddle', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
