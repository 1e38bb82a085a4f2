"""What several of ACGAN's tests need: small architectures, random weights, and the networks written
out in numpy.
"""

import numpy as np

# The specification's tables: (kernel, stride, padding) of each transposed convolution, padding of
# each convolution.
_DOUBLING = (4, 2, 1)
G_SHAPES = {
    ("callifrey", 32): [(4, 2, 0), *[_DOUBLING] * 3],
    ("callifrey", 64): [(4, 2, 0), *[_DOUBLING] * 4],
    ("callifrey", 128): [(4, 2, 0), *[_DOUBLING] * 5],
    ("clvrai", 32): [(4, 1, 0), *[_DOUBLING] * 3],
    ("clvrai", 64): [(5, 2, 0), (5, 2, 0), (5, 2, 0), (8, 2, 0)],
    ("clvrai", 128): [(5, 2, 0), (5, 2, 0), (5, 2, 0), (5, 2, 0), (8, 2, 0)],
}
D_PADDINGS = {
    key: [1, 0] * 3 if key in (("clvrai", 64), ("clvrai", 128)) else [1] * 6 for key in G_SHAPES
}


def tiny(model, form="callifrey", imsize=32, **changes):
    """A form at a sixteenth of the published width with three classes."""
    return model.Architecture(
        **(
            {"imsize": imsize, "form": form, "num_classes": 3, "nz": 7, "ngf": 4, "ndf": 4}
            | changes
        )
    )


def tensor(array):
    """A float32 paddle tensor of a numpy array."""
    import paddle

    return paddle.to_tensor(np.ascontiguousarray(array, np.float32))


def random_state(net, seed=0):
    """Random values for every parameter and buffer, such that no activation vanishes, explodes or
    saturates.
    """
    rng, state = np.random.default_rng(seed), {}
    for name, old in net.state_dict().items():
        value = rng.standard_normal(old.shape)
        if name.endswith("_variance"):
            value = np.abs(value) + 0.5
        elif len(old.shape) > 1:
            inputs = np.prod(old.shape[1:])
            if (
                "tconv" in name or len(old.shape) == 2
            ):  # stride 2: a quarter of the kernel meets each output
                inputs = old.shape[0] * np.prod(old.shape[2:]) / (4 if "tconv" in name else 1)
            value /= np.sqrt(inputs)
        state[name] = value.astype("float32")
    return state


def with_state(net, state):
    """The network holding `state`, in eval mode."""
    net.set_state_dict(state)
    net.eval()
    return net


# ---- the networks by definition, float64
# -----------------------------------------------------------------------------


def convolve(x, weight, stride, padding):
    """Cross-correlation: y[n, o, i, j] = sum over c, u, v of w[o, c, u, v] x[n, c, s i + u - p, s j
    + v - p].
    """
    k = weight.shape[2]
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    side = (x.shape[2] - k) // stride + 1
    y = np.zeros((len(x), len(weight), side, side))
    for u in range(k):
        for v in range(k):
            part = x[:, :, u : u + stride * side : stride, v : v + stride * side : stride]
            y += np.einsum("oc,ncij->noij", weight[:, :, u, v], part[:, :, :side, :side])
    return y


def transpose_convolve(x, weight, stride, padding):
    """Each x[n, c, i, j] adds x w[c, o] to the k x k outputs from (s i - p, s j - p) on."""
    k, side = weight.shape[2], x.shape[2]
    full = np.zeros((len(x), weight.shape[1], stride * (side - 1) + k, stride * (side - 1) + k))
    for i in range(side):
        for j in range(side):
            patch = np.einsum("nc,couv->nouv", x[:, :, i, j], weight)
            full[:, :, stride * i : stride * i + k, stride * j : stride * j + k] += patch
    return full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding]


def batch_norm(x, state, name, training):
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias; of the batch (biased variance) or the
    running ones.
    """
    mean, variance = (state[f"{name}.{leaf}"] for leaf in ("_mean", "_variance"))
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scale = state[f"{name}.weight"] / np.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def _biased(h, state, name):
    bias = state.get(f"{name}.0.bias")
    return h if bias is None else h + bias[:, None, None]


def generate(state, z, form, imsize, fc_relu, training=False):
    """G by the specification's table, float64 throughout."""
    state = {name: value.astype("float64") for name, value in state.items()}
    h = z @ state["fc1.weight"] + state["fc1.bias"]
    h = (np.maximum(h, 0) if fc_relu else h)[:, :, None, None]
    shapes = G_SHAPES[form, imsize]
    for i, (_, stride, padding) in enumerate(shapes):
        name = f"tconv{i + 2}"
        h = _biased(transpose_convolve(h, state[f"{name}.0.weight"], stride, padding), state, name)
        if i < len(shapes) - 1:
            h = np.maximum(batch_norm(h, state, f"{name}.1", training), 0)
    return np.tanh(h)


def discriminate(state, x, form, imsize):
    """D by the specification's table in eval mode (no dropout), float64: (source logit, class
    logits).
    """
    state = {name: value.astype("float64") for name, value in state.items()}
    for i, padding in enumerate(D_PADDINGS[form, imsize]):
        name = f"conv{i + 1}"
        x = _biased(convolve(x, state[f"{name}.0.weight"], 2 - i % 2, padding), state, name)
        x = x if i == 0 else batch_norm(x, state, f"{name}.1", False)
        x = np.where(x > 0, x, 0.2 * x)
    h = x.reshape(len(x), -1)
    return tuple(
        h @ state[f"{head}.weight"] + state[f"{head}.bias"] for head in ("fc_dis", "fc_aux")
    )
