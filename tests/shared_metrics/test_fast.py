"""fast.py: each form against the function of Paddle's that it stands for, and its second
derivatives against float64 finite differences.
"""

import numpy as np
import pytest

RNG = np.random.default_rng


@pytest.fixture
def fast():
    from shared_metrics import fast

    return fast


def leaf(value):
    """A tensor that wants a gradient, of the array's own type."""
    import paddle

    tensor = paddle.to_tensor(value)
    tensor.stop_gradient = False
    return tensor


def assert_equal(ours, theirs, *values):
    """Two functions of float32 arrays give the same value and, for a sum of squares, gradients."""
    results = []
    for function in (ours, theirs):
        inputs = [leaf(value.astype("float32")) for value in values]
        y = function(*inputs)
        y.square().sum().backward()
        results.append([y.numpy(), *(x.grad.numpy() for x in inputs)])
    for got, want in zip(*results, strict=True):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-6)


# ---- convolutions ----


@pytest.mark.parametrize("stride, padding, side", [(1, 0, 1), (1, 1, 3), (2, 1, 3), (2, 2, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(fast, stride, padding, side, bias):
    import paddle.nn.functional as F

    values = [RNG(0).standard_normal(s) for s in ((2, 3, 6, 7), (4, 3, side, side), (4,))]
    assert_equal(
        lambda x, w, *b: fast.conv2d(x, w, *b, stride=stride, padding=padding),
        lambda x, w, *b: F.conv2d(x, w, *b, stride=stride, padding=padding),
        *values[: 3 if bias else 2],
    )


@pytest.mark.parametrize("padding, side", [(0, 4), (1, 3), (1, 4), (0, 7), (2, 2)])
def test_conv2d_to_few_channels(fast, monkeypatch, padding, side):
    import paddle.nn.functional as F

    transposed = []
    real = F.conv2d_transpose
    monkeypatch.setattr(
        F, "conv2d_transpose", lambda *args, **how: transposed.append(1) or real(*args, **how)
    )
    values = [RNG(0).standard_normal(s) for s in ((2, 12, 15, 16), (3, 12, side, side), (3,))]
    assert_equal(
        lambda x, w, b: fast.conv2d(x, w, b, padding=padding),
        lambda x, w, b: F.conv2d(x, w, b, padding=padding),
        *values,
    )
    assert len(transposed) == (padding < side)


@pytest.mark.parametrize("padding, side", [(0, 4), (1, 3), (1, 4), (0, 7), (2, 2)])
def test_conv2d_to_few_channels_in_a_program(fast, padding, side):
    import paddle
    import paddle.nn.functional as F

    from shared_metrics import inference

    network = fast.Conv2D(12, 3, side, padding=padding)
    network.bias.set_value(np.float32([1, 2, 3]))
    network.eval()
    x = RNG(0).standard_normal((2, 12, 9, 10), dtype=np.float32)
    how = {"bias": network.bias, "padding": padding}
    expected = F.conv2d(paddle.to_tensor(x), network.weight, **how).numpy()
    got = inference.program(network, [x])(x)
    np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("pixels", [1, 10_000])
def test_conv2d_of_upsampled_with_gradients(fast, monkeypatch, pixels):
    import paddle.nn.functional as F

    monkeypatch.setattr(fast, "PIXELS", pixels)
    values = [RNG(0).standard_normal(s) for s in ((2, 3, 5, 6), (4, 3, 3, 3), (4,))]

    def plain(x, w, b):
        large = F.upsample(x, scale_factor=2, mode="nearest")
        return F.conv2d(large, w, b, padding=1)

    assert_equal(fast.conv2d_of_upsampled, plain, *values)


@pytest.mark.parametrize("pixels", [1, 10_000])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_pooled_conv2d(fast, monkeypatch, pixels, side):
    import paddle.nn.functional as F

    monkeypatch.setattr(fast, "PIXELS", pixels)
    values = [RNG(0).standard_normal(s) for s in ((2, 3, 6, 8), (4, 3, side, side), (4,))]

    def plain(x, w, b):
        return F.avg_pool2d(F.conv2d(x, w, b, padding=side // 2), 2)

    assert_equal(fast.pooled_conv2d, plain, *values)


def test_float32_enters_auto_cast_only_where_it_is_on(fast, monkeypatch):
    import paddle

    real = paddle.amp.auto_cast
    entered = []
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **how: entered.append(how) or real(**how))
    for outside in (None, False, True):
        entered.clear()
        if outside is None:
            with fast.float32():
                pass
        else:
            with real(enable=outside, dtype="bfloat16"), fast.float32():
                pass
        assert entered == ([{"enable": False}] if outside else [])


@pytest.mark.parametrize("width", [1, 3])
def test_reflection_pad(fast, width):
    from paddle import nn

    x = RNG(0).standard_normal((2, 3, 5, 4))
    assert_equal(fast.ReflectionPad2D(width), nn.Pad2D(width, mode="reflect"), x)


@pytest.mark.parametrize("side", [1, 3])
def test_reflection_pad_refuses_what_has_too_few_pixels(fast, side):
    import paddle

    with pytest.raises(ValueError, match="3 pixels cannot be mirrored"):
        fast.ReflectionPad2D(3)(paddle.zeros([1, 2, 5, side]))


@pytest.mark.parametrize("name", ["conv2d_of_upsampled", "pooled_conv2d"])
def test_joined_convolutions_of_float64(fast, monkeypatch, name):
    import paddle

    values = [RNG(0).standard_normal(s) for s in ((2, 3, 6, 8), (4, 3, 3, 3))]
    results = []
    for pixels in (1, 10_000):
        monkeypatch.setattr(fast, "PIXELS", pixels)
        results.append(getattr(fast, name)(*map(paddle.to_tensor, values)).numpy())
    assert results[0].dtype == np.float64
    np.testing.assert_allclose(*results, atol=1e-12)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d_of_upsampled_as_a_layer_and_as_a_program(fast, side, bias):
    import paddle
    import paddle.nn.functional as F

    from shared_metrics import inference

    class Upsampled(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.weight = self.create_parameter([4, 3, side, side])
            self.bias = self.create_parameter([4]) if bias else None
            self.convolve = fast.conv2d_of_upsampled  # no name of this test is one in a program

        def forward(self, x):
            return self.convolve(x, self.weight, self.bias)

    network = Upsampled()
    network.eval()
    if bias:
        network.bias.set_value(np.arange(4, dtype=np.float32))
    x = RNG(0).standard_normal((2, 3, 5, 6), dtype=np.float32)
    large = F.upsample(paddle.to_tensor(x), scale_factor=2, mode="nearest")
    expected = F.conv2d(large, network.weight, network.bias, padding=side // 2).numpy()
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(inference.run_layer(network, x), expected, atol=atol)
    np.testing.assert_allclose(inference.program(network, [x])(x), expected, atol=atol)


@pytest.mark.parametrize(
    "stride, padding, output_padding, side", [(1, 0, 0, 4), (2, 1, 0, 4), (2, 1, 1, 3)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d_transpose(fast, stride, padding, output_padding, side, bias):
    import paddle.nn.functional as F

    values = [RNG(0).standard_normal(s) for s in ((2, 3, 4, 5), (3, 4, side, side), (4,))]
    sizes = {"stride": stride, "padding": padding, "output_padding": output_padding}
    assert_equal(
        lambda x, w, *b: fast.conv2d_transpose(x, w, *b, **sizes),
        lambda x, w, *b: F.conv2d_transpose(x, w, *b, **sizes),
        *values[: 3 if bias else 2],
    )


@pytest.mark.parametrize("bias", [None, False])
@pytest.mark.parametrize(
    "name, sizes",
    [
        ("Conv2D", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("Conv2DTranspose", {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    ],
)
def test_layers(fast, name, sizes, bias):
    """Bit for bit what Paddle's layer gives, from the same first weights under the same names."""
    import paddle

    outputs, states = [], []
    for module in (fast, paddle.nn):
        paddle.seed(5)
        layer = getattr(module, name)(3, 4, bias_attr=bias, **sizes)
        if layer.bias is not None:
            layer.bias.set_value(paddle.arange(4, dtype="float32"))
        outputs.append(layer(paddle.randn([2, 3, 6, 7])).numpy())
        states.append({key: value.numpy() for key, value in layer.state_dict().items()})
    assert np.array_equal(*outputs)
    assert list(states[0]) == list(states[1])
    assert all(np.array_equal(value, states[1][key]) for key, value in states[0].items())


# ---- upsampling, softmax, pooling ----


@pytest.mark.parametrize("factor", [2, 3])
def test_upsample(fast, factor):
    import paddle.nn.functional as F

    x = RNG(0).standard_normal((2, 3, 2, 5))
    got = fast.upsample(leaf(x), factor).numpy()
    assert np.array_equal(got, x.repeat(factor, 2).repeat(factor, 3))
    assert_equal(
        lambda x: fast.upsample(x, factor),
        lambda x: F.upsample(x, scale_factor=factor, mode="nearest"),
        x,
    )


@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(fast, axis):
    import paddle.nn.functional as F

    x = RNG(0).standard_normal((2, 3, 6)) * 3
    assert_equal(lambda x: fast.softmax(x, axis), lambda x: F.softmax(x, axis), x)
    far = fast.softmax(leaf(np.float32([[500.0, 0.0, -500.0]])))
    assert far.numpy().tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("size", [2, 3])
def test_max_pool2d(fast, size):
    import paddle.nn.functional as F

    x = RNG(0).standard_normal((2, 3, 6, 12))
    assert_equal(lambda x: fast.max_pool2d(x, size), lambda x: F.max_pool2d(x, size), x)


def test_equal_largest_values_share_the_gradient(fast):
    x = leaf(np.float32([[[[1, 4, 0, 0], [4, 2, 0, 0]]]]))
    y = fast.max_pool2d(x, 2)
    assert y.tolist() == [[[[4, 0]]]]
    (y * leaf(np.float32([6, 8]))).sum().backward()
    assert x.grad.tolist() == [[[[0, 3, 2, 2], [3, 0, 2, 2]]]]


# ---- gradients of gradients ----


def differences(function, x, step=1e-6):
    """The gradient of a scalar function of a float64 array, by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        move = np.zeros_like(x)
        move[i] = step
        gradient[i] = (function(x + move) - function(x - move)) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", ["softmax", "max_pool2d", "upsample"])
def test_second_derivatives(fast, name):
    """Of L = sum a f(x)^3: dL/dx, and the gradient of <b, dL/dx>, in float64."""
    import paddle

    function = {
        "softmax": fast.softmax,
        "max_pool2d": lambda x: fast.max_pool2d(x, 2),
        "upsample": fast.upsample,
    }[name]
    rng = RNG(1)
    x, b = rng.standard_normal((2, 1, 2, 4, 4))
    a = rng.standard_normal(function(leaf(x)).shape)

    def loss(x):
        return (paddle.to_tensor(a) * function(x) ** 3).sum()

    def slope(x):
        tensor = leaf(x)
        return paddle.grad(loss(tensor), tensor, create_graph=True)[0], tensor

    gradient, tensor = slope(x)
    want = differences(lambda x: float(loss(leaf(x))), x)
    np.testing.assert_allclose(gradient.numpy(), want, atol=1e-7)
    (gradient * paddle.to_tensor(b)).sum().backward()
    want = differences(lambda x: float((slope(x)[0].numpy() * b).sum()), x)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(tensor.grad.numpy(), want, atol=1e-7)
