"""What several of SAGAN's tests need: small architectures, random weights, tensors."""

import numpy as np


def tensor(array):
    """A paddle tensor of a numpy array; float64 becomes float32."""
    import paddle

    return paddle.to_tensor(array.astype("float32") if array.dtype == np.float64 else array)


def tiny(model, form="sagan", imsize=32, classes=3, **changes):
    """A published form at 8 channels of base width and 6 latents."""
    return model.architecture(
        form, imsize, classes, **({"g_conv_dim": 8, "d_conv_dim": 8, "z_dim": 6} | changes)
    )


def randomize(net, seed=0):
    """Random values in every parameter and buffer (variances positive, u and v of length one);
    returns the network.
    """
    rng, state = np.random.default_rng(seed), {}
    for name, old in net.state_dict().items():
        value = rng.standard_normal(old.shape).astype("float32")
        if name.endswith("_variance"):
            value = np.abs(value) + 0.5
        elif name.endswith(("weight_u", "weight_v")):
            value /= np.linalg.norm(value)
        state[name] = value
    net.set_state_dict(state)
    return net
