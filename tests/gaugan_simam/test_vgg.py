"""The perceptual loss's VGG19 against a computation without Paddle, and its weights files, read
strictly.
"""

import numpy as np
import pytest
from scipy.signal import correlate

from shared_metrics import weights
from shared_metrics.errors import UserError

WIDTHS = (2, 3, 2, 2, 2)
CONVS = (2, 2, 4, 4, 4)
# of torchvision's VGG19 convolutions
TORCH_PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


@pytest.fixture
def vgg(paper):
    return paper("gaugan_simam").vgg


def kernels(seed=0):
    """[(weight, bias)] of the sixteen convolutions at WIDTHS."""
    rng = np.random.default_rng(seed)
    inputs = 3
    layers = []
    for width, number in zip(WIDTHS, CONVS, strict=True):
        for _ in range(number):
            scale = (2 / (9 * inputs)) ** 0.5
            layers.append((rng.normal(0, scale, (width, inputs, 3, 3)), rng.normal(0, 0.1, width)))
            inputs = width
    return [(w.astype("float32"), b.astype("float32")) for w, b in layers]


def paddlegan_file(path, drop=(), **extra):
    """A file in the layout of PaddleGAN's vgg19pretrain.pdparams."""
    names = [
        f"_conv_block_{b}._conv_{n}.weight"
        for b, number in enumerate(CONVS, 1)
        for n in range(1, number + 1)
    ]
    state = {name: w for name, (w, _) in zip(names, kernels(), strict=True) if name not in drop}
    weights.save(state | {"_fc1.weight": np.ones((4, 4)), "_out.bias": np.ones(4)} | extra, path)
    return path


def torch_file(path, places=TORCH_PLACES):
    state = {}
    for place, (w, b) in zip(places, kernels(), strict=True):
        state |= {f"features.{place}.weight": w, f"features.{place}.bias": b}
    weights.save(
        state | {"classifier.0.weight": np.ones((4, 4)), "classifier.6.bias": np.ones(4)}, path
    )
    return path


def by_hand(image, bias):
    """([pooled outputs], [first ReLU of each block]) of one image (3, H, W), in float64."""
    x = image.astype("float64")
    pooled, firsts = [], []
    layers = iter(kernels())
    for number in CONVS:
        for n in range(number):
            w, b = next(layers)
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            x = np.stack([correlate(padded, k.astype("float64"), "valid")[0] for k in w])
            x = np.maximum(x + b[:, None, None] * bias, 0)
            if n == 0:
                firsts.append(x)
        C, H, W = x.shape
        if H > 1:
            x = x.reshape(C, H // 2, 2, W // 2, 2).max((2, 4))
            pooled.append(x)
    return pooled, firsts


@pytest.mark.parametrize(
    "variant, plain", [("photopen", True), ("nvlabs", False), ("photopen", False)]
)
def test_features_are_those_of_a_computation_without_paddle(vgg, tmp_path, variant, plain):
    import paddle

    file = paddlegan_file(tmp_path / "v.pdparams") if plain else torch_file(tmp_path / "v.pdparams")
    image = np.random.default_rng(1).uniform(-1, 1, (3, 16, 16)).astype("float32")
    features = vgg.load_vgg(file, variant, WIDTHS)(paddle.to_tensor(image[None]))
    pooled, firsts = by_hand(image, bias=not plain)
    expected = [image, *pooled[:4]] if variant == "photopen" else firsts
    assert len(features) == 5
    for a, b in zip(features, expected, strict=True):
        assert a.shape[1:] == list(b.shape) and np.allclose(a.numpy()[0], b, atol=1e-5)


def test_the_loss_is_the_weighted_sum_of_mean_differences(vgg, tmp_path):
    import paddle

    net = vgg.load_vgg(paddlegan_file(tmp_path / "v.pdparams"), "photopen", WIDTHS)
    rng = np.random.default_rng(2)
    fake, real = (
        paddle.to_tensor(rng.uniform(-1, 1, (2, 3, 32, 32)).astype("float32")) for _ in range(2)
    )
    fake.stop_gradient = real.stop_gradient = False
    loss = vgg.perceptual_loss(net, fake, real, size=16)
    expected = 0.0
    for n in range(2):
        pair = [x.numpy()[n][:, ::2, ::2] for x in (fake, real)]  # nearest neighbour, half the side
        (a, _), (b, _) = (by_hand(x, bias=False) for x in pair)
        features = zip(
            [pair[0], *a[:4]], [pair[1], *b[:4]], (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), strict=True
        )
        expected += sum(rate * np.abs(f - r).mean() for f, r, rate in features) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert fake.grad is not None and real.grad is None
    assert all(p.stop_gradient and p.grad is None for p in net.parameters())


def test_size_0_compares_at_the_images_own_size(vgg, tmp_path):
    import paddle

    net = vgg.load_vgg(torch_file(tmp_path / "v.pdparams"), "nvlabs", WIDTHS)
    rng = np.random.default_rng(3)
    fake, real = (
        paddle.to_tensor(rng.uniform(-1, 1, (1, 3, 16, 16)).astype("float32")) for _ in range(2)
    )
    (_, a), (_, b) = (by_hand(x.numpy()[0], bias=True) for x in (fake, real))
    rates = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    expected = sum(rate * np.abs(f - r).mean() for f, r, rate in zip(a, b, rates, strict=True))
    assert float(vgg.perceptual_loss(net, fake, real)) == pytest.approx(expected, rel=1e-4)


def test_only_what_the_loss_needs_is_built(vgg):
    assert len(vgg.VGG19("photopen", widths=WIDTHS).parameters()) == 2 * 12
    assert len(vgg.VGG19("nvlabs", bias=False, widths=WIDTHS).parameters()) == 13
    full = vgg.VGG19("photopen", bias=False)
    assert sum(p.size for p in full.parameters()) == 9 * (
        3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 3 * 256**2 + 256 * 512 + 3 * 512**2
    )


FIRST = "_conv_block_1._conv_1"


def vgg16_file(path):
    """torchvision's VGG16 has its convolutions in other places."""
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 30, 32, 34)
    return torch_file(path, places)


@pytest.mark.parametrize("make, named", [
    (lambda p: paddlegan_file(p, drop=("_conv_block_2._conv_2.weight",)), "conv2_2.weight"),
    (lambda p: paddlegan_file(p, **{f"{FIRST}.bias": np.ones(2)}), f"{FIRST}.bias"),
    (lambda p: paddlegan_file(p, **{f"{FIRST}.weight": np.ones((5, 3, 3, 3))}), "(5, 3, 3, 3)"),
    (vgg16_file, "conv3_4.weight"),
    (lambda p: weights.save({"features.1.running_mean": np.ones(2)}, p), "features.1.running_mean"),
    (lambda p: weights.save([np.ones(2)], p), "no named weights"),
])  # fmt: skip
def test_other_files_are_refused(vgg, tmp_path, make, named):
    path = tmp_path / "v.pdparams"
    make(path)
    with pytest.raises(UserError) as error:
        vgg.load_vgg(path, "photopen", WIDTHS)
    assert f"--vgg_weights {path}" in str(error.value) and named in str(error.value)
    assert "\n" not in str(error.value)
