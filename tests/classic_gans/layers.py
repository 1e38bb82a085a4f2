"""The layers of the classic GANs in numpy, written independently of Paddle, and what tests of
networks share.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv(x, weight, bias=None, stride=1, padding=0):
    """x (N, C, H, W), weight (O, C, k, k) -> (N, O, H', W')."""
    p = padding
    k = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    h = np.einsum("nchwij,ocij->nohw", windows, weight)
    return h if bias is None else h + bias[:, None, None]


def deconv(x, weight, bias=None, stride=1, padding=0, output_padding=0):
    """x (N, C, H, W), weight (C, O, k, k): each number of x adds its share of the kernel."""
    N, _, H, W = x.shape
    k = weight.shape[2]
    height = (H - 1) * stride + k + output_padding
    width = (W - 1) * stride + k + output_padding
    h = np.zeros((N, weight.shape[1], height, width))
    for i in range(H):
        for j in range(W):
            share = np.einsum("nc,coij->noij", x[:, :, i, j], weight)
            h[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += share
    h = h[:, :, padding : h.shape[2] - padding, padding : h.shape[3] - padding]
    return h if bias is None else h + bias[:, None, None]


def normalise(x, axes, scale=None, shift=None):
    """(x - mean) / sqrt(var + 1e-5) over `axes`; scale and shift along axis 1."""
    h = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    if scale is None:
        return h
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return h * scale.reshape(shape) + shift.reshape(shape)


def batch_norm(x, state, name):
    """BatchNorm in training mode with the scale and shift that `state` holds under `name`."""
    axes = (0, *range(2, x.ndim))
    return normalise(x, axes, state[f"{name}.weight"], state[f"{name}.bias"])


def leaky_relu(x, slope):
    return np.where(x > 0, x, slope * x)


def reflect(x, width):
    edges = ((0, 0), (0, 0), (width, width), (width, width))
    return np.pad(x, edges, mode="reflect")


def max_pool(x):
    """2x2 windows."""
    N, C, H, W = x.shape
    return x.reshape(N, C, H // 2, 2, W // 2, 2).max((3, 5))


def state_of(network, seed=0):
    """Give the network random weights large enough to matter and return them, float64."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        value = 0.3 * rng.standard_normal(tensor.shape)
        state[name] = np.abs(value) + 0.5 if name.endswith("_variance") else value
    network.set_state_dict({name: value.astype("float32") for name, value in state.items()})
    return state


def trainable(network):
    """How many numbers the network learns; running statistics are not counted."""
    return sum(p.size for p in network.parameters() if not p.stop_gradient)


def check_initialisation(*networks):
    """Weights are N(0, 0.02), biases and shifts 0, scales of BatchNorm N(1, 0.02)."""
    scales = []
    for network in networks:
        for layer in network.sublayers():
            weight = getattr(layer, "weight", None)
            if weight is None:
                continue
            weight = weight.numpy()
            if "Norm" in type(layer).__name__:
                scales.append(weight)
            elif weight.size > 10_000:
                assert abs(weight.std() - 0.02) < 0.001, layer
                assert abs(weight.mean()) < 0.001, layer
            if layer.bias is not None:
                assert not layer.bias.numpy().any(), layer
    if scales:
        scales = np.concatenate(scales)
        assert abs(scales.mean() - 1) < 0.005 and 0.016 < scales.std() < 0.024
