"""Folders of PaddlePaddle 1.x, written here byte by byte: a file a variable, nothing run."""

import struct

import numpy as np
import pytest

from shared_metrics.errors import UserError
from shared_metrics.fluid_files import load, load_folder
from tests.shared_metrics.fluid import CODES, variable


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 200), (2, 0, 3), (2, 3, 4, 5)])
def test_types_and_shapes(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    (tmp_path / "w").write_bytes(variable(array))
    (tmp_path / "packed").write_bytes(variable(array, [[0, 1], [0, 1, 2]], packed=True))
    for name in ("w", "packed"):
        read = load(tmp_path / name)
        assert read.dtype == array.dtype and read.shape == shape and (read == array).all()
        assert read.flags.writeable


def test_bfloat16_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CODES, "float16", 22)
    (tmp_path / "w").write_bytes(variable(np.ones((2, 3), np.float16)))
    with pytest.raises(UserError, match="bfloat16"):
        load(tmp_path / "w")


def test_a_folder(tmp_path):
    (tmp_path / "generator_c1_w").write_bytes(variable(np.ones((2, 3), np.float32)))
    (tmp_path / "@LR_DECAY_COUNTER@").write_bytes(variable(np.int64([7])))
    (tmp_path / "__model__").write_bytes(b"a program")
    (tmp_path / ".DS_Store").write_bytes(b"a Mac's")
    state = load_folder(tmp_path)
    assert sorted(state) == ["@LR_DECAY_COUNTER@", "generator_c1_w"]
    assert state["@LR_DECAY_COUNTER@"].tolist() == [7] and state["generator_c1_w"].sum() == 6


def test_a_folder_without_files(tmp_path):
    (tmp_path / "net_G").mkdir()
    with pytest.raises(UserError, match="holds no variables"):
        load_folder(tmp_path)


WHOLE = variable(np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:10],
        WHOLE[:25],
        WHOLE[:-1],
        WHOLE + b"x",
        WHOLE + WHOLE,  # two variables in one file, as `filename` makes it
        b"\x01" + WHOLE[1:],
        b"<html><body>sign in first</body></html>",
        struct.pack("<IQ", 0, 2**64 - 1) + b"\xff" * 64,
        struct.pack("<IQ", 0, 1) + struct.pack("<Q", 2**63) + b"x" * 64,
        struct.pack("<IQIi", 0, 0, 0, -1),
        struct.pack("<IQIi", 0, 0, 0, 2) + b"\x08\x07",  # a type that is no number
        struct.pack("<IQIi", 0, 0, 0, 12) + b"\x08\x05\x10" + b"\xff" * 8 + b"\x7f",
        struct.pack("<IQIi", 0, 0, 0, 13) + b"\x08\x05\x10" + b"\xff" * 10,  # a side without end
        struct.pack("<IQIi", 0, 0, 0, 36) + b"\x08\x05" + b"\x10\x01" * 17 + bytes(4),
    ],
    ids=range(15),
)
def test_what_is_no_variable_is_named(tmp_path, content):
    (tmp_path / "broken_w").write_bytes(content)
    with pytest.raises(UserError, match="broken_w: no variable of PaddlePaddle 1.x") as error:
        load_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_every_flipped_byte_is_read_or_refused(tmp_path):
    """Nothing but UserError comes out of a damaged file."""
    for place in range(len(WHOLE)):
        for value in (0x00, 0x7F, 0xFF):
            damaged = WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :]
            (tmp_path / "w").write_bytes(damaged)
            try:
                assert load(tmp_path / "w").nbytes <= len(WHOLE)
            except UserError:
                pass


def test_files_of_paddle_itself(tmp_path):
    """Paddle still writes this format for a static program's parameters."""
    paddle = pytest.importorskip("paddle")
    core = paddle.base.core
    if not hasattr(core, "save_dense_tensor"):
        pytest.skip("this Paddle does not write the format")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = core.DenseTensor()
    tensor.set(array, core.CPUPlace())
    core.save_dense_tensor(tensor, str(tmp_path / "w"))
    assert (load(tmp_path / "w") == array).all()
