"""What several of GauGAN's tests need: small architectures, random weights, tensors."""

import numpy as np


def tensor(array):
    import paddle

    return paddle.to_tensor(
        np.ascontiguousarray(array, "float32" if np.asarray(array).dtype == np.float64 else None)
    )


def tiny(model, variant="photopen", **changes):
    sizes = {"label_nc": 3, "crop_size": 32, "ngf": 2, "ndf": 2, "nef": 1, "z_dim": 4}
    return model.architecture(variant, **(sizes | changes))


def randomize(net, seed=0, scale=0.3):
    """Random values in every parameter and buffer (variances positive, u and v of length one);
    returns the network.
    """
    rng, state = np.random.default_rng(seed), {}
    for name, old in net.state_dict().items():
        value = rng.standard_normal(old.shape) * scale
        if name.endswith("_variance"):
            value = np.abs(value) + 0.5
        elif name.endswith(("weight_u", "weight_v")):
            value /= np.linalg.norm(value)
        state[name] = value.astype("float32")
    net.set_state_dict(state)
    return net


def arrays(net):
    """The state of a network as {name: array}."""
    return {k: v.numpy() for k, v in net.state_dict().items()}
