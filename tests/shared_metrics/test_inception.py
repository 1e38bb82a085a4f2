"""The network, its weights in every published layout, the reference implementations' numbers."""

import lzma

import numpy as np
import paddle
import pytest

from shared_metrics import inception_weights, weights
from shared_metrics.errors import UserError
from shared_metrics.features import Extractor, bilinear, prepare
from shared_metrics.inception import InceptionV3
from tests.conftest import shared_dir

# The random network of every machine, numpy and Paddle version: changing it changes all scores made
# with it.
RANDOM_SHA256 = "5d7b41ba5e3230db4e2ed9051dbc2879f4b898fad4444f645c4d0208b739e32c"


def assert_close(left, right, name=""):
    """The numbers of two implementations agree: float32 through 94 convolutions."""
    np.testing.assert_allclose(left, right, atol=1e-3, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def shapes():
    return inception_weights.expected_shapes(InceptionV3())


@pytest.fixture(scope="module")
def parity():
    folder = shared_dir("parity") / "inception"
    with np.load(folder / "inception_fixture.npz") as data:
        yield folder, data


@pytest.fixture(scope="module")
def reference(parity, tmp_path_factory):
    """The parity weights in pytorch-fid's layout: path, extractor."""
    path = tmp_path_factory.mktemp("weights") / "inception_random.pth"
    path.write_bytes(lzma.decompress((parity[0] / "inception_random.pth.xz").read_bytes()))
    return path, Extractor(path)


@pytest.fixture(scope="module")
def random_state(shapes):
    return inception_weights.random_weights(shapes)


def test_size_of_the_network(shapes):
    everything = {**shapes, **inception_weights.CLASSIFIER}
    assert len(everything) == 472
    assert sum(int(np.prod(shape)) for shape in everything.values()) == 23_885_392


@pytest.mark.parametrize(
    "size, variants", [(32, "torch tf pil clean"), (128, "torch tf pil clean"), (299, "torch tf")]
)
def test_features_and_logits_of_the_peers(parity, reference, size, variants):
    images = parity[1][f"images_{size}"].transpose(0, 2, 3, 1)[:4]
    extractor = reference[1]
    names = {
        "torch": "pytorch_fid_2048",
        "tf": "torch_fidelity_2048",
        "pil": "pil_bicubic_u8_2048",
        "clean": "clean_fid_2048",
    }
    for variant in variants.split():
        features = extractor.features(images, variant)
        assert_close(features, parity[1][f"{names[variant]}_{size}"][:4], variant)
        if variant == "tf":
            for bias, name in ((False, "logits_unbiased"), (True, "logits")):
                expected = parity[1][f"torch_fidelity_{name}_{size}"][:4]
                assert_close(extractor.logits(features, bias), expected)


def test_inner_taps_of_pytorch_fid(parity, reference):
    network = InceptionV3()
    shapes = inception_weights.expected_shapes(network)
    state, _ = inception_weights.load_inception(reference[0], shapes)
    network.set_state_dict({inception_weights.paddle_name(key): state[key] for key in shapes})
    x = paddle.to_tensor(prepare(parity[1]["images_32"].transpose(0, 2, 3, 1)[:2], "torch"))
    ends = {"maxpool1": 64, "maxpool2": 192, "Mixed_6e": 768, "Mixed_7c": 2048}
    with paddle.no_grad():
        for name, child in network.named_children():
            x = child(x)
            if name in ends:
                expected = parity[1][f"pytorch_fid_{ends[name]}_32"][:2]
                assert_close(x.mean([2, 3]).numpy(), expected, name)


def test_features_do_not_depend_on_the_batch(parity, reference):
    images = parity[1]["images_32"].transpose(0, 2, 3, 1)[:5]
    extractor = reference[1]
    whole = extractor.features(images)
    extractor.batch_size = 2  # an odd last batch
    np.testing.assert_allclose(extractor.features(images), whole, atol=1e-5)
    # A list is resized one by one.
    np.testing.assert_allclose(extractor.features(list(images)), whole, atol=1e-5)
    assert extractor.features(images[:0]).shape == (0, 2048)
    mixed = extractor.features([images[0], np.repeat(images[1], 2, axis=0)])
    np.testing.assert_allclose(mixed[0], whole[0], atol=1e-5)
    assert np.abs(mixed[1] - whole[1]).max() > 1e-2


def test_channel_order_matters(parity, reference):
    images = parity[1]["images_32"].transpose(0, 2, 3, 1)[:1]
    rgb = reference[1].features(images)
    bgr = reference[1].features(images[..., ::-1])
    assert np.abs(bgr - rgb).max() > 0.1


def test_images_must_be_uint8_rgb(reference):
    for images in (
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        [np.zeros((8, 8), np.uint8)],
        [None],
    ):
        with pytest.raises(ValueError, match="need uint8"):
            reference[1].features(images)


def test_every_layout_gives_the_same_weights(parity, reference, shapes, tmp_path):
    ours, info = inception_weights.load_inception(reference[0], shapes)
    # PaddleGAN's and PaddleCV's have no classifier; Paddle's Linear is transposed.
    paddlecv = {key: ours[key] for key in shapes}
    paddlegan = {inception_weights.paddle_name(key): value for key, value in paddlecv.items()}
    table = {"StructuredToParameterName@@": {"a": "b"}}
    transposed = {**ours, "fc.weight": ours["fc.weight"].T, **table}
    weights.save(paddlegan, tmp_path / "gan.pdparams")
    weights.save(paddlecv, tmp_path / "cv.pdparams")
    weights.save(transposed, tmp_path / "t.pdparams")
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in ours.items()}, tmp_path / "w.safetensors")
    for name in ("gan.pdparams", "cv.pdparams", "t.pdparams", "w.safetensors"):
        state, own_info = inception_weights.load_inception(tmp_path / name, shapes)
        assert own_info["sha256"] == info["sha256"], name  # over all arrays of the trunk
        assert ("fc.weight" in state) == (name not in ("gan.pdparams", "cv.pdparams"))
        if "fc.weight" in state:
            np.testing.assert_array_equal(state["fc.weight"], ours["fc.weight"])


def test_stylegan_export(parity, reference, shapes, tmp_path):
    """The TorchScript file's BatchNorm has no gamma: it is inside the convolution and the mean."""
    ours, _ = inception_weights.load_inception(reference[0], shapes)
    tero = tmp_path / "inception-2015-12-05.pt"
    tero.write_bytes(lzma.decompress((parity[0] / "inception_random_tero.pt.xz").read_bytes()))
    theirs, _ = inception_weights.load_inception(tero, shapes)
    for key, value in ours.items():
        layer, _, leaf = key.rpartition(".")
        if leaf == "running_mean":
            value = value * ours[f"{layer}.weight"]
        elif layer.endswith(".conv"):
            value = value * ours[f"{layer[:-5]}.bn.weight"][:, None, None, None]
        elif key.endswith("bn.weight"):
            value = np.ones_like(value)
        np.testing.assert_allclose(theirs[key], value, rtol=1e-5, atol=1e-7, err_msg=key)


def test_the_layout_of_paddle_vision(shapes):
    """ppdiffusers: paddle.vision's own network has the names and shapes that we map."""
    theirs = paddle.vision.models.inception_v3(num_classes=1008).state_dict()
    marked = {}  # each array bears its number
    for i, (key, value) in enumerate(theirs.items()):
        marked[key] = np.full(value.shape, i, np.float32)
    state = inception_weights.recognise(marked, "file")
    expected = {**shapes, **inception_weights.CLASSIFIER}
    weights.check_keys(expected, state, what="network", source="file")
    names = {
        "Conv2d_3b_1x1.bn.running_var": "inception_stem.conv_3b_1x1.1._variance",
        "Mixed_5b.branch_pool.conv.weight": "inception_block_list.0.branch_pool_conv.0.weight",
        "Mixed_6a.branch3x3.bn.bias": "inception_block_list.3.branch3x3.1.bias",
        "Mixed_7c.branch3x3dbl_3b.bn.running_mean": (
            "inception_block_list.10.branch3x3dbl_3b.1._mean"
        ),
    }
    for ours, vision in names.items():
        assert state[ours].flat[0] == marked[vision].flat[0], ours


def test_other_weights_are_refused_with_what_differs(shapes, random_state, tmp_path):
    path = tmp_path / "w.pdparams"
    cut = {k: v for k, v in random_state.items() if "Mixed_7c.branch_pool" not in k}
    auxiliary = {**random_state, "AuxLogits.fc.weight": np.zeros(3)}
    imagenet = {**random_state, "fc.weight": np.zeros((1000, 2048))}
    nan = {**random_state, "Mixed_5b.branch1x1.bn.bias": np.full(64, np.nan)}
    cases = (
        (cut, "5 missing .Mixed_7c.branch_pool"),
        (auxiliary, "1 unexpected .AuxLogits.fc.weight"),
        (imagenet, r"fc.weight: file .1000, 2048., network .1008, 2048."),
        (nan, "Mixed_5b.branch1x1.bn.bias of the .* holds NaN"),
        ([1, 2], "no named weights"),
    )
    for state, message in cases:
        weights.save(state, path)
        with pytest.raises(UserError, match=message) as error:
            inception_weights.load_inception(path, shapes)
        assert "w.pdparams" in str(error.value)


def test_random_network_is_the_same_everywhere(random_state):
    assert inception_weights.trunk_sha256(random_state) == RANDOM_SHA256


def test_random_network_tells_images_apart(shapes):
    extractor = Extractor("random")
    noise = np.random.RandomState(0).randint(0, 256, (6, 4, 4, 3), np.uint8)
    smooth = noise.repeat(8, axis=1).repeat(8, axis=2)
    features = extractor.features(smooth)
    spread = features.std(axis=0)
    assert extractor.info["comparable"] is False and extractor.info["source"].startswith("random")
    assert spread.mean() > 0.1 * features.mean() and (spread > 0).mean() > 0.8
    assert extractor.logits(features).std(axis=0).mean() > 0.5


def test_without_a_classifier_there_is_no_inception_score():
    extractor = Extractor.__new__(Extractor)
    extractor.info = {"source": "gan.pdparams"}
    extractor._classifier = (None, None)
    with pytest.raises(UserError, match="gan.pdparams: .* no classifier"):
        extractor.logits(np.zeros((1, 2048)))


def test_resize_rules():
    # 2 -> 299 pixels: TensorFlow 1 reads pixel i * 2 / 299, PyTorch (i + 0.5) * 2 / 299 - 0.5
    tf = bilinear(2, False) @ [0, 299.0]
    torch = bilinear(2, True) @ [0, 299.0]
    np.testing.assert_allclose(tf[[0, 1, 149, 150, 298]], [0, 2, 298, 299, 299], rtol=1e-5)
    some = [0, 74, 75, 149, 224, 298]
    np.testing.assert_allclose(torch[some], [0, 0, 1.5, 149.5, 299, 299], atol=1e-3)
    np.testing.assert_array_equal(bilinear(299, False), np.eye(299))


@pytest.mark.parametrize("align_mode, variant", [(0, "torch"), (1, "tf")])
def test_resize_equals_paddles(align_mode, variant):
    images = np.random.RandomState(0).randint(0, 256, (1, 40, 610, 3), np.uint8)
    x = paddle.to_tensor(images.transpose(0, 3, 1, 2).astype(np.float32))
    expected = paddle.nn.functional.interpolate(
        x, [299, 299], mode="bilinear", align_corners=False, align_mode=align_mode
    ).numpy()
    expected = expected / 127.5 - 1 if variant == "torch" else (expected - 128) / 128
    np.testing.assert_allclose(prepare(images, variant), expected, atol=2e-4)


def test_scaling_of_the_variants():
    white = np.full((1, 10, 10, 3), 255, np.uint8)
    values = {"torch": 1, "tf": 127 / 128, "clean": 127 / 128, "pil": 127 / 128}
    for variant, value in values.items():
        np.testing.assert_allclose(prepare(white, variant), value, atol=1e-6, err_msg=variant)
        np.testing.assert_allclose(prepare(np.zeros_like(white), variant), -1, atol=1e-6)
