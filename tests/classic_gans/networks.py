"""What several tests of StarGAN, AttGAN, STGAN and SPADE need: tensors, weights, differences."""

import numpy as np
import paddle
from numpy.lib.stride_tricks import sliding_window_view


def tensor(array, dtype="float32"):
    return paddle.to_tensor(np.ascontiguousarray(array), dtype=dtype)


def size(network):
    """How many numbers the network learns; running statistics are not counted."""
    return sum(p.size for p in network.parameters() if not p.stop_gradient)


def arrays(network):
    """The state of a network as {name: array}."""
    return {name: value.numpy() for name, value in network.state_dict().items()}


def randomize(network, seed=0, scale=0.3):
    """Random values in every parameter and buffer (variances positive, u and v of length one);
    returns the network.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, old in network.state_dict().items():
        value = rng.standard_normal(old.shape) * scale
        if name.endswith("_variance"):
            value = np.abs(value) + 0.5
        elif name.endswith(("weight_u", "weight_v")):
            value /= np.linalg.norm(value)
        state[name] = value.astype(str(old.dtype).split(".")[-1])
    network.set_state_dict(state)
    return network


def conv(x, weight, bias=None, stride=1, padding=0):
    """x (N, C, H, W), weight (O, C, k, k) -> (N, O, H', W'), in numpy."""
    edges = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), edges, edges))
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    h = np.einsum("nchwij,ocij->nohw", windows, weight)
    return h if bias is None else h + bias[:, None, None]


def deconv(x, weight, bias):
    """4x4, stride 2, padding 1: x (N, C, H, W), weight (C, O, 4, 4) -> (N, O, 2H, 2W), in numpy.

    The convolution by the flipped kernel of x with zeros between its entries.
    """
    N, C, H, W = x.shape
    spread = np.zeros((N, C, 2 * H - 1, 2 * W - 1))
    spread[:, :, ::2, ::2] = x
    return conv(spread, weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], bias, padding=2)


def check_uniform(values, bound):
    """Values drawn from U(-bound, bound), rather many of them."""
    assert 0.97 * bound < np.abs(values).max() <= bound
    assert abs(values.std() - bound / 3**0.5) < 0.05 * bound


def check_penalty_gradient(discriminator, penalty, real, fake):
    """The gradient of a gradient penalty by D's weights against central differences, all float64.

    Args: penalty(D, real, fake), the 0-d tensor; the weights with the largest gradients are tried.
    """
    discriminator.to(dtype="float64")
    randomize(discriminator, seed=3)
    real = tensor(real, "float64")
    fake = tensor(fake, "float64")
    value = penalty(discriminator, real, fake)
    value.backward()
    assert value.item() > 1e-3
    step = 1e-6
    tried = 0
    for parameter in discriminator.parameters():
        if parameter.grad is None:
            continue
        gradient = parameter.grad.numpy()
        i = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        if abs(gradient[i]) < 1e-6:
            continue
        start = parameter.numpy()
        values = []
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * step
            parameter.set_value(moved)
            values.append(penalty(discriminator, real, fake).item())
        parameter.set_value(start)
        expected = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient[i], expected, rtol=2e-5, atol=1e-9)
        tried += 1
    assert tried >= 3
