"""GauGAN's layers against numpy and Paddle's own: SimAM, SPADE, blocks of G and D, spectral norm,
the semantic map.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from tests.gaugan_simam.networks import arrays, randomize, tensor, tiny

RNG = np.random.default_rng


@pytest.fixture
def model(paper):
    return paper("gaugan_simam").model


# ---- SimAM ----


def simam64(x, lam):
    n = max(x.shape[2] * x.shape[3] - 1, 1)
    d = (x - x.mean((2, 3), keepdims=True)) ** 2
    e = d / (4 * (d.sum((2, 3), keepdims=True) / n + lam)) + 0.5
    return x / (1 + np.exp(-e))


@pytest.mark.parametrize("lam", [1e-4, 0.1])
def test_simam_and_its_gradient(model, lam):
    """Against float64, the gradient against central differences of it."""
    rng = RNG(0)
    value, slope = rng.standard_normal((2, 3, 3, 5)) * 0.7 + 0.4, rng.standard_normal((2, 3, 3, 5))
    x = tensor(value)
    x.stop_gradient = False
    y = model.simam(x, lam)
    np.testing.assert_allclose(y.numpy(), simam64(value, lam), rtol=1e-5, atol=1e-6)
    (y * tensor(slope)).sum().backward()
    want = np.empty_like(value)
    for i in np.ndindex(*value.shape):
        step = np.zeros_like(value)
        step[i] = 1e-5
        want[i] = ((simam64(value + step, lam) - simam64(value - step, lam)) * slope).sum() / 2e-5
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-3, atol=1e-4)


def test_simam_of_constant_and_single_pixel_maps(model):
    for x in (np.full((2, 3, 4, 4), -7.0), RNG(1).standard_normal((2, 3, 1, 1))):
        x = tensor(x)
        x.stop_gradient = False
        y = model.simam(x, 1e-4)
        np.testing.assert_allclose(y.numpy(), 0.6224593 * x.numpy(), rtol=1e-5)
        y.sum().backward()
        assert np.isfinite(x.grad.numpy()).all()


def test_simam_is_float32_under_amp(model):
    import paddle

    value = RNG(2).standard_normal((1, 2, 8, 8)) + 300  # in bfloat16 the variance would be lost
    x = tensor(value).astype("bfloat16")
    with paddle.amp.auto_cast(dtype="bfloat16"):
        y = model.simam(x, 1e-4)
    assert y.dtype == paddle.bfloat16
    want = simam64(x.astype("float32").numpy().astype("float64"), 1e-4)
    np.testing.assert_allclose(y.astype("float32").numpy(), want, rtol=1e-2)


# ---- SPADE and the blocks against numpy ----


def conv(x, W, b=None, stride=1):
    k = W.shape[-1]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("nihwab,oiab->nohw", windows, W.astype(np.float64))
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def standard(x):
    return (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)


def spade64(state, name, x, seg, kind, variant):
    at = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
    if kind == "instance":
        h = standard(x)
        if variant == "photopen":
            h = h * at["param_free_norm.scale"].reshape(1, -1, 1, 1) + at[
                "param_free_norm.bias"
            ].reshape(1, -1, 1, 1)
    else:
        mean, var = (
            at[f"param_free_norm.{k}"].reshape(1, -1, 1, 1) for k in ("_mean", "_variance")
        )
        h = (x - mean) / np.sqrt(var + 1e-5)
    shared = conv(seg, at["mlp_shared.0.weight"], at["mlp_shared.0.bias"])
    shared = gelu(shared) if variant == "photopen" else np.maximum(shared, 0)
    gamma, beta = (
        conv(shared, at[f"mlp_{g}.weight"], at[f"mlp_{g}.bias"]) for g in ("gamma", "beta")
    )
    return h * (1 + gamma) + beta


@pytest.mark.parametrize("variant", ["photopen", "nvlabs"])
@pytest.mark.parametrize("kind, side", [("batch", 3), ("syncbatch", 1), ("instance", 5)])
def test_spade(model, variant, kind, side):
    arch = tiny(model, variant, norm_G=f"spade{kind}{side}x{side}")
    layer = randomize(model.SPADE(3, arch), scale=0.1)
    layer.eval()
    x, seg = (
        RNG(3).standard_normal((2, 3, 4, 6)),
        RNG(4).standard_normal((2, arch.semantic_nc, 4, 6)),
    )
    want = spade64({f"l.{k}": v for k, v in arrays(layer).items()}, "l.", x, seg, kind, variant)
    np.testing.assert_allclose(layer(tensor(x), tensor(seg)).numpy(), want, rtol=1e-4, atol=1e-4)
    if kind == "instance":
        names = {k for k in layer.state_dict() if "param_free_norm" in k}
        assert names == (
            {"param_free_norm.scale", "param_free_norm.bias"} if variant == "photopen" else set()
        )


def sn(state, name):
    W = state[f"{name}weight_orig"].astype(np.float64)
    return W / (state[f"{name}weight_u"] @ W.reshape(len(W), -1) @ state[f"{name}weight_v"])


@pytest.mark.parametrize(
    "variant, spectral", [("photopen", "spectral"), ("nvlabs", "spectral"), ("nvlabs", "")]
)
@pytest.mark.parametrize("i, o", [(4, 2), (3, 3)])
def test_residual_block(model, variant, spectral, i, o):
    """SPADE, activation, convolution, twice; the shortcut has no activation; SimAM at the end in
    photopen.
    """
    arch = tiny(model, variant, norm_G=f"{spectral}spadebatch3x3")
    block = randomize(model.SPADEResBlock(i, o, arch), 5, scale=0.1)
    block.eval()
    x, seg = (
        RNG(5).standard_normal((2, i, 4, 4)),
        RNG(6).standard_normal((2, arch.semantic_nc, 4, 4)),
    )
    state, act = arrays(block), gelu if variant == "photopen" else leaky

    def weight(name):
        return sn(state, name) if spectral else state[f"{name}weight"]

    def spade(name, h):
        return spade64(state, f"{name}.", h, seg, "batch", variant)

    h = conv(act(spade("spade_0", x)), weight("act_conv_0.1."), state["act_conv_0.1.bias"])
    assert h.shape[1] == min(i, o)
    h = conv(act(spade("spade_1", h)), weight("act_conv_1.1."), state["act_conv_1.1.bias"])
    want = h + (x if i == o else conv(spade("spade_s", x), weight("act_conv_s.0.")))
    want = simam64(want, 1e-4) if variant == "photopen" else want
    scale = np.abs(want).max()
    np.testing.assert_allclose(
        block(tensor(x), tensor(seg)).numpy() / scale, want / scale, atol=1e-5
    )


@pytest.mark.parametrize("variant", ["photopen", "nvlabs"])
def test_discriminator_scale(model, variant):
    """First convolution and logits bare, spectral and instance norm between; the next scale sees
    the pooled input.
    """
    arch = tiny(model, variant, n_layers_D=2, num_D=2)
    D = randomize(model.Discriminator(arch), 7)
    D.eval()
    x = RNG(8).standard_normal((2, arch.semantic_nc + 3, 9, 9))
    scales = D(tensor(x))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    for i, seen in enumerate([x, np.nanmean(windows, (4, 5))]):
        state = {k.removeprefix(f"nld_{i}.{i}."): v for k, v in arrays(D).items()}
        act, attend = (
            (gelu, lambda x: simam64(x, 1e-4)) if variant == "photopen" else (leaky, lambda x: x)
        )
        want = [attend(act(conv(seen, state["block_0.0.weight"], state["block_0.0.bias"], 2)))]
        h = standard(conv(want[0], sn(state, "block_1.0."), state.get("block_1.0.bias")))
        assert (
            ("block_1.0.bias" in state) == ("block_1.1.scale" in state) == (variant == "photopen")
        )
        if variant == "photopen":
            h = h * state["block_1.1.scale"].reshape(1, -1, 1, 1) + state["block_1.1.bias"].reshape(
                1, -1, 1, 1
            )
        want.append(attend(act(h)))
        want.append(attend(conv(want[1], state["block_2.weight"], state["block_2.bias"])))
        for got, expected in zip(scales[i], want, strict=True):
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=1e-4)


# ---- spectral norm ----


def test_sigma_is_near_the_largest_singular_value_at_birth_and_converges(model):
    import paddle

    layer = model.SNConv(6, 8, 3, tiny(model))
    top = np.linalg.svd(layer.weight_orig.numpy().reshape(8, -1), compute_uv=False)[0]

    def sigma():
        W = layer.weight_orig.numpy().reshape(8, -1)
        return layer.weight_u.numpy() @ W @ layer.weight_v.numpy()

    assert sigma() == pytest.approx(top, rel=0.05)
    for _ in range(150):
        layer(paddle.ones([1, 6, 4, 4]))
    assert sigma() == pytest.approx(top, rel=1e-4)
    np.testing.assert_allclose(
        layer.kernel().numpy() * top, layer.weight_orig.numpy(), rtol=1e-3, atol=1e-6
    )


def test_one_power_iteration_a_training_pass_and_none_in_eval(model):
    import paddle

    layer, x = randomize(model.SNConv(2, 4, 3, tiny(model))), paddle.ones([1, 2, 4, 4])
    W, u = layer.weight_orig.numpy().reshape(4, -1), layer.weight_u.numpy()
    layer.eval()
    layer(x)
    assert np.array_equal(layer.weight_u.numpy(), u)
    layer.train()
    with paddle.no_grad():
        layer(x)
    v = W.T @ u / np.linalg.norm(W.T @ u)
    np.testing.assert_allclose(layer.weight_v.numpy(), v, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        layer.weight_u.numpy(), W @ v / np.linalg.norm(W @ v), rtol=1e-4, atol=1e-6
    )
    assert list(layer.state_dict()) == ["weight_orig", "bias", "weight_u", "weight_v"]


def test_spectral_norm_is_paddles(model):
    """Two training passes before the gradient through both, as the D step has them, then an eval
    pass.
    """
    import paddle

    ours = randomize(model.SNConv(3, 4, 3, tiny(model)))
    theirs = paddle.nn.utils.spectral_norm(paddle.nn.Conv2D(3, 4, 3, padding=1))
    theirs.set_state_dict(ours.state_dict())
    x = tensor(RNG(1).standard_normal((2, 3, 5, 5)))
    for net in (ours, theirs):
        (net(x).sum() + (net(x) ** 2).sum()).backward()
    grads = [net.weight_orig.grad.numpy() for net in (ours, theirs)]
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-3, atol=1e-4 * np.abs(grads[1]).max())
    ours.eval(), theirs.eval()
    np.testing.assert_allclose(ours(x).numpy(), theirs(x).numpy(), rtol=1e-4, atol=1e-5)


def test_export_equals_the_eager_block(model, tmp_path):
    """Exported before any forward: Paddle's own spectral_norm would export what it last
    normalised.
    """
    import paddle

    arch = tiny(model)
    block = randomize(model.SPADEResBlock(2, 1, arch), scale=0.1)
    block.eval()
    spec = [paddle.static.InputSpec([None, c, 4, 4], "float32") for c in (2, arch.semantic_nc)]
    paddle.jit.save(paddle.jit.to_static(block, spec, full_graph=True), str(tmp_path / "b"))
    x, seg = paddle.randn([2, 2, 4, 4]), paddle.randn([2, arch.semantic_nc, 4, 4])
    want = model.SPADEResBlock.forward(block, x, seg).numpy()
    got = paddle.jit.load(str(tmp_path / "b"))(x, seg).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


# ---- the semantic map ----


def test_edges_mark_both_sides(model):
    arch = tiny(model, label_nc=2)
    labels = np.array([[[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 2]]])
    maps = model.semantics(labels, None, arch).numpy()
    assert maps.shape == (1, 4, 4, 4) and maps.dtype == np.float32
    assert np.array_equal(maps[0, :3].argmax(0), labels[0]) and (maps[0, :3].sum(0) == 1).all()
    assert maps[0, 3].astype(int).tolist() == [
        [0, 1, 0, 0],
        [1, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
    ]


def test_edges_are_of_the_instances_where_there_are_some(model):
    labels, instances = np.zeros((1, 2, 4), int), np.array([[[7, 7, 1000, 1000]] * 2])
    arch = tiny(model)
    assert model.semantics(labels, instances, arch).numpy()[0, -1].tolist() == [[0, 1, 1, 0]] * 2
    assert model.semantics(tensor(labels), tensor(instances), arch).shape == [1, 5, 2, 4]
    assert model.semantics(labels, None, arch).numpy()[0, -1].max() == 0
    plain = replace(arch, no_instance=True, contain_dontcare_label=False)
    assert plain.semantic_nc == 3 and model.semantics(labels, instances, plain).shape == [
        1,
        3,
        2,
        4,
    ]
