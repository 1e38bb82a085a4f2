"""Torch's containers, made by hand: every stride, type and layout read as torch means it."""

import zipfile

import pytest

from shared_metrics import weights
from tests.shared_metrics.handmade import (
    EXPECTED,
    STORAGES,
    TENSORS,
    assert_same,
    dictionary,
    refusal,
    tensor,
    torch_legacy,
    torch_object,
    torch_zip,
)


def test_torch_zip(tmp_path):
    (tmp_path / "ckpt").write_bytes(torch_zip(torch_object(), version="3\n", byteorder="little"))
    assert_same(weights.load(tmp_path / "ckpt"), EXPECTED)


def test_torch_zip_packed_anew_with_compression(tmp_path):
    (tmp_path / "ckpt.pth").write_bytes(torch_zip(torch_object(), compression=zipfile.ZIP_DEFLATED))
    assert_same(weights.load(tmp_path / "ckpt.pth"), EXPECTED)


def test_torch_legacy(tmp_path):
    path = tmp_path / "ckpt.pdparams"  # the suffix tells nothing
    path.write_bytes(torch_legacy(torch_object(legacy=True)))
    assert_same(weights.load(path), EXPECTED)


def test_torchscript_modules_become_dotted_names(tmp_path):
    def module(name, **attributes):
        return f"c__torch__.{name}\nShell\n".encode() + b")\x81" + dictionary(**attributes) + b"b"

    def row(name):
        key, offset, size, stride, _ = TENSORS[name]
        storage, values = STORAGES[key]
        return tensor(storage, key, len(values), offset=offset, size=size, stride=stride)

    false = b"\x89"
    conv = module("___torch_mangle_1", weight=row("slice"), training=false)
    layers = module("inner", conv=conv, conv_1=conv)
    root = module("net", training=false, layers=layers, bias=row("half"))
    content = torch_zip(b"\x80\x02" + root + b".", **{"code/__torch__.py": "ignored"})
    (tmp_path / "net.pt").write_bytes(content)
    sliced = TENSORS["slice"][-1]
    half = TENSORS["half"][-1]
    expected = {"layers.conv.weight": sliced, "layers.conv_1.weight": sliced, "bias": half}
    assert_same(weights.load(tmp_path / "net.pt"), expected)


@pytest.mark.parametrize(
    "one",
    [  # storage, key, count, offset, size, stride
        tensor("FloatStorage", "0", 24, 20, (5,), (1,)),  # past the end
        tensor("FloatStorage", "0", 24, 0, (2, 13), (12, 1)),
        tensor("FloatStorage", "0", 24, -1, (2,), (1,)),
        tensor("FloatStorage", "0", 24, 23, (2,), (-1,)),
        tensor("FloatStorage", "0", 25, 0, (2,), (1,)),  # more declared than stored
        tensor("FloatStorage", "9", 24, 0, (2,), (1,)),  # no such storage
        tensor("DoubleStorage", "0", 24, 0, (2,), (1,)),
    ],
)
def test_torch_tensor_outside_its_storage(tmp_path, one):
    content = torch_zip(b"\x80\x02" + dictionary(w=one) + b".")
    assert "damaged" in refusal(tmp_path / "x.pth", content)


def test_torch_itself_agrees(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an oracle here, no dependency")
    base = torch.arange(60.0).reshape(3, 4, 5)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    obj = {
        "net": net.state_dict(),
        "transposed": base.transpose(0, 2),
        "slice": base[1:, :, 2],
        "parameter": torch.nn.Parameter(base),
        "bf16": torch.linspace(-3, 7, 9).bfloat16(),
        "half": base.half(),
        "size": base.shape,
        "lr": 0.1,
    }

    def to_numpy(value):
        if isinstance(value, dict):
            return {key: to_numpy(item) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            value = value.float() if value.dtype == torch.bfloat16 else value
            return value.detach().numpy()
        return tuple(value) if isinstance(value, torch.Size) else value

    for new_zip in (True, False):
        torch.save(obj, tmp_path / "x.pth", _use_new_zipfile_serialization=new_zip)
        assert_same(weights.load(tmp_path / "x.pth"), to_numpy(obj))
    torch.jit.script(net).save(str(tmp_path / "x.pt"))
    loaded = weights.load(tmp_path / "x.pt")
    assert_same(loaded, {name: to_numpy(net.state_dict()[name]) for name in loaded})
    assert loaded.keys() == net.state_dict().keys()
