"""Every paper's generator leaves the house and draws there as it did here."""

import importlib
import importlib.util
import json
import os

import numpy as np
import paddle
import pytest

from scripts import export
from shared_metrics import weights
from shared_metrics.errors import UserError
from tests.conftest import ROOT, run_cli

SMALL = {
    "sagan": {"imsize": 32, "num_classes": 3, "g_conv_dim": 4, "g_attention": (16,)}
    | {"d_attention": (16,)},
    "acgan": {"imsize": 32, "num_classes": 3, "nz": 8, "ngf": 4, "ndf": 4},
    "gaugan_simam": {"crop_size": 32, "ngf": 2, "label_nc": 3, "use_vae": True, "z_dim": 4},
    "cgan": {"image_size": 8, "noise_size": 4, "g_base_dims": 2, "d_base_dims": 2},
    "dcgan": {"image_size": 16, "noise_size": 4, "g_base_dims": 2, "d_base_dims": 2},
    "pix2pix": {"net_G": "unet_128", "norm_type": "batch_norm", "g_base_dims": 2},
    "cyclegan": {"net_G": "resnet_6block", "g_base_dims": 2, "input_nc": 1},
    "stargan": {"image_size": 64, "c_dim": 2, "g_base_dims": 2, "d_base_dims": 2},
    "attgan": {"image_size": 64, "c_dim": 2, "g_base_dims": 2, "d_base_dims": 2},
    "stgan": {"image_size": 64, "c_dim": 2, "g_base_dims": 2, "d_base_dims": 2},
    "spade": {"crop_width": 64, "crop_height": 32, "label_nc": 3, "ngf": 2, "ndf": 2},
}
ONNX = ("sagan", "pix2pix")  # attention and classes, slopes; a conversion takes seconds


def onnx_missing():
    """Why --format onnx cannot be tried here, or ""."""
    if paddle.__version__.startswith("2."):
        return "paddle2onnx 2 is for Paddle 3"
    lacking = [n for n in ("paddle2onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
    return f"{' and '.join(lacking)} not installed (extra export)" if lacking else ""


@pytest.fixture
def checkpoint(paper, tmp_path):
    """Function that saves a small generator of a paper with weights of some training steps."""

    def save(name):
        alone = name in ("sagan", "acgan", "gaugan_simam")
        paper(name if alone else "classic_gans")
        model = importlib.import_module("model" if alone else f"{name}.model")
        arch = model.Architecture(**SMALL[name])
        state = {"paper": name, "architecture": arch.to_dict(), "iteration": 3}
        paddle.seed(0)
        for key, make in export.generators(name, model, arch).items():
            network = make()
            network.train()
            for arrays in 3 * list(export.tries(export.inputs_of(name, arch, key)))[1:]:
                network(*map(paddle.to_tensor, arrays))
            state[key] = {n: t.numpy() for n, t in network.state_dict().items()}
        weights.save(state, tmp_path / "iter_0000003.pdparams")
        return tmp_path / "iter_0000003.pdparams"

    return save


@pytest.mark.parametrize("name", SMALL)
def test_what_is_exported_for_paddle_draws_as_the_checkpoint(name, checkpoint):
    path = checkpoint(name)
    export.main([str(path), "--format", "paddle"])
    folder = path.with_name("iter_0000003_paddle")
    card = json.loads((folder / "export.json").read_text())
    assert card["paper"] == name and card["checkpoint"]["iteration"] == 3
    expected = {"generator_A", "generator_B"} if name == "cyclegan" else {"generator"}
    assert set(card["networks"]) == expected
    kept = {file.stem for file in folder.glob("*.pdiparams")}
    assert kept == expected and not list(folder.parent.glob(".*.tmp"))
    for network in card["networks"].values():
        assert network["difference"] <= export.LIMIT
        assert all(entry["shape"][0] is None for entry in network["inputs"])


@pytest.mark.skipif(bool(onnx_missing()), reason=onnx_missing())
@pytest.mark.parametrize("name", ONNX)
def test_what_is_exported_for_onnx_draws_as_the_checkpoint(name, checkpoint):
    path = checkpoint(name)
    export.main([str(path), "--format", "onnx"])
    folder = path.with_name("iter_0000003_onnx")
    assert {file.name for file in folder.iterdir()} == {"export.json", "generator.onnx"}
    assert json.loads((folder / "export.json").read_text())["networks"]["generator"]["inputs"]


def test_onnx_under_paddle_2_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    with pytest.raises(UserError, match="--format onnx: .*needs Paddle 3 and this is 2.6.2"):
        export.main(["nothing.pdparams", "--format", "onnx"])


def test_spectral_norm_is_folded_away(paper):
    paper("sagan")
    from model import Generator, architecture
    from shared_metrics.fast import fold_spectral_norm

    network = Generator(architecture("studiogan", 32, 3, z_dim=8, g_conv_dim=4))
    network.eval()
    inputs = [paddle.randn([2, 8]), paddle.to_tensor([0, 2])]
    with paddle.no_grad():
        before = network(*inputs).numpy()
        fold_spectral_norm(network)
        for layer in network.sublayers():
            if hasattr(layer, "weight_u"):
                layer.weight_u.zero_()  # nothing divides by what it makes any more
        assert np.array_equal(network(*inputs).numpy(), before)


def test_other_pictures_than_the_checkpoints_leave_nothing(checkpoint, monkeypatch):
    path = checkpoint("dcgan")

    def wrong(prefix):
        draw = own(prefix)
        return lambda arrays: 1.001 * draw(arrays)

    own = export.runner
    monkeypatch.setattr(export, "runner", wrong)
    with pytest.raises(UserError, match="other pictures than the checkpoint"):
        export.main([str(path), "--format", "paddle"])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nothing_is_overwritten_and_mistakes_are_named(checkpoint, tmp_path):
    path = checkpoint("dcgan")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="--output_dir .*there: exists already"):
        export.main([str(path), "--format", "paddle", "--output_dir", str(tmp_path / "there")])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is no folder; give another"):
        export.main([str(path), "--format", "paddle", "--output_dir", str(tmp_path / "file" / "x")])
    with pytest.raises(UserError, match="--paper nogan: unknown"):
        export.main([str(path), "--format", "paddle", "--paper", "nogan"])
    with pytest.raises(UserError, match="nowhere.pdparams: cannot be read"):
        export.main([str(tmp_path / "nowhere.pdparams"), "--format", "paddle"])
    weights.save({"generator": {}}, tmp_path / "bare.pdparams")
    with pytest.raises(UserError, match="does not tell its paper; give it by --paper"):
        export.main([str(tmp_path / "bare.pdparams"), "--format", "paddle"])


@pytest.mark.parametrize("absolute", [True, False])
def test_a_paper_that_a_file_names_runs_no_code_of_another_place(absolute, tmp_path):
    """A folder beside the checkpoint, say, which came out of the same archive."""
    place = tmp_path / "evil"
    place.mkdir()
    for name in ("model.py", "convert.py"):
        (place / name).write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    paper = str(place) if absolute else os.path.relpath(place, ROOT)
    weights.save({"paper": paper, "architecture": {}, "generator": {}}, tmp_path / "x.pdparams")
    done = run_cli(".", "scripts/export.py", tmp_path / "x.pdparams", "--format", "paddle", code=2)
    assert "unknown" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("paper", [["sagan"], 7, "", {"sagan": 1}])
def test_a_paper_of_another_type_is_told(paper, tmp_path):
    weights.save({"paper": paper}, tmp_path / "x.pdparams")
    with pytest.raises(UserError, match="paper"):
        export.main([str(tmp_path / "x.pdparams"), "--format", "paddle"])
