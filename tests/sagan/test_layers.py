"""SAGAN's layers against numpy and against Paddle's own: spectral norm, conditional BatchNorm,
blocks, attention.
"""

import numpy as np
import pytest

from tests.sagan.networks import randomize, tensor, tiny

RNG = np.random.default_rng


@pytest.fixture
def model(paper):
    return paper("sagan").model


# ---- spectral norm ----


def layers(model, eps=1e-12):
    """(our layer, Paddle's with the same weights under paddle.nn.utils.spectral_norm, an input), of
    three kinds.
    """
    import paddle

    nn, arch, rng = paddle.nn, model.Architecture(), RNG(1)
    pairs = [
        (
            model.SNConv2D(3, 4, 3, arch, eps),
            nn.Conv2D(3, 4, 3, padding=1),
            rng.standard_normal((2, 3, 5, 5)),
        ),
        (model.SNLinear(5, 4, arch, eps), nn.Linear(5, 4), rng.standard_normal((2, 5))),
        (model.SNEmbedding(6, 4, arch, eps), nn.Embedding(6, 4), rng.integers(6, size=3)),
    ]
    for ours, theirs, x in pairs:
        theirs = nn.utils.spectral_norm(theirs, eps=eps)
        state = randomize(ours).state_dict()
        assert {k: v.shape for k, v in theirs.state_dict().items()} == {
            k: v.shape for k, v in state.items()
        }
        theirs.set_state_dict({k: v.numpy() for k, v in state.items()})
        yield ours, theirs, tensor(x.astype("float32") if x.dtype == float else x)


@pytest.mark.parametrize("eps", [1e-12, 3.0])
def test_spectral_norm_is_paddles(model, eps):
    """Two training passes, then the gradient through both, then an eval pass; eps = 3 exceeds the
    norms it guards.
    """
    for ours, theirs, x in layers(model, eps):
        losses = [net(x).sum() + (net(x) ** 2).sum() for net in (ours, theirs)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
        for loss in losses:
            loss.backward()
        grads = [net.weight_orig.grad.numpy() for net in (ours, theirs)]
        np.testing.assert_allclose(
            grads[0], grads[1], rtol=1e-4, atol=1e-5 * np.abs(grads[1]).max()
        )
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(
                ours.state_dict()[key].numpy(), value.numpy(), atol=1e-6, err_msg=key
            )
        ours.eval(), theirs.eval()
        np.testing.assert_allclose(ours(x).numpy(), theirs(x).numpy(), rtol=1e-5, atol=1e-6)


def test_sigma_converges_to_the_largest_singular_value(model):
    for ours, _, x in layers(model):
        W = ours.weight_orig.numpy()
        top = np.linalg.svd(W.T if ours.transposed else W.reshape(len(W), -1), compute_uv=False)[0]
        for _ in range(200):
            ours(x)
        ours.eval()
        np.testing.assert_allclose(ours.weight().numpy() * top, W, rtol=1e-4, atol=1e-6)


def test_power_iteration_runs_once_a_training_pass_and_never_in_eval(model):
    import paddle

    layer = randomize(model.SNLinear(5, 4, model.Architecture(), 1e-12))
    W, u = layer.weight_orig.numpy().T, layer.weight_u.numpy()
    layer.eval()
    layer(paddle.ones([1, 5]))
    assert np.array_equal(layer.weight_u.numpy(), u)
    layer.train()
    with paddle.no_grad():
        layer(paddle.ones([1, 5]))
    v = W.T @ u / np.linalg.norm(W.T @ u)
    np.testing.assert_allclose(layer.weight_v.numpy(), v, rtol=1e-5)
    np.testing.assert_allclose(layer.weight_u.numpy(), W @ v / np.linalg.norm(W @ v), rtol=1e-5)


def test_every_layer_has_the_published_eps(model):
    def eps(form):
        arch = tiny(model, form, init="xavier")
        kinds = {}
        for net in (model.Generator(arch), model.Discriminator(arch)):
            layers = [(n, m) for n, m in net.named_sublayers() if hasattr(m, "weight_orig")]
            for name, layer in layers:
                kind = name.split(".")[0]
                kind = "cbn" if "cond_bn" in name else "block" if kind.startswith("block") else kind
                kinds.setdefault(kind, set()).add(layer.eps)
        return kinds

    ends = dict.fromkeys(
        ("snlinear0", "snconv2d1", "opt_block1", "snlinear1", "sn_embedding1"), {1e-12}
    )
    assert eps("sagan") == ends | {"block": {1e-12}, "self_attn": {1e-12}}
    assert eps("mmgen") == ends | {"block": {1e-12}, "cbn": {1e-12}, "self_attn": {1e-6}}
    assert eps("mmgen-biggan") == ends | {"block": {1e-8}, "self_attn": {1e-6}}
    assert eps("studiogan") == dict.fromkeys([*ends, "block", "cbn", "self_attn"], {1e-6})


# ---- BatchNorm and its conditional form ----


@pytest.mark.parametrize(
    "form, kept, last", [("sagan", 0.999, 0.9999), ("mmgen", 0.9, 0.9), ("mmgen-biggan", 0.9, 0.9)]
)
def test_running_statistics_keep_the_published_share(model, form, kept, last):
    G = model.Generator(tiny(model, form, init="xavier"))
    x = RNG(0).standard_normal((4, 32, 5, 5)).astype("float32") * 3 + 7
    for bn, share in [(G.block1.cond_bn1.bn, kept), (G.bn, last)]:
        bn(tensor(x))
        np.testing.assert_allclose(
            bn._mean.numpy(), (1 - share) * x.mean((0, 2, 3)), rtol=2e-3, atol=1e-6
        )
        n, biased = (
            4 * 5 * 5,
            x.var((0, 2, 3)),
        )  # biased on the CPU; n / (n - 1) times that elsewhere
        moved = (bn._variance.numpy() - share) / (1 - share)
        assert (moved > biased * 0.99).all() and (moved < biased * 1.01 * n / (n - 1)).all()


@pytest.mark.parametrize("form", ["sagan", "studiogan", "mmgen-biggan"])
@pytest.mark.parametrize("training", [True, False])
def test_conditional_batch_norm(model, form, training):
    arch = tiny(model, form, init="xavier")
    cbn = randomize(model.ConditionalBatchNorm(4, arch))
    cbn.training = cbn.bn.training = training
    x = (
        RNG(1).standard_normal((3, 4, 2, 2)).astype("float32") * 0.01
    )  # variance 1e-4: eps 1e-4 or 1e-5 shows
    y = np.array([2, 0, 2])
    mean, var = (
        (x.mean((0, 2, 3)), x.var((0, 2, 3)))
        if training
        else (cbn.bn._mean.numpy(), cbn.bn._variance.numpy())
    )
    eps = {"sagan": 1e-5, "studiogan": 1e-4, "mmgen-biggan": 1e-5}[form]
    normal = (x - mean.reshape(1, 4, 1, 1)) / np.sqrt(var + eps).reshape(1, 4, 1, 1)
    if form == "sagan":
        table = cbn.embed.weight.numpy()
        gamma, beta = table[:, :4], table[:, 4:]
    elif form == "mmgen-biggan":
        gamma, beta = 1 + cbn.gain.weight.numpy(), cbn.bias.weight.numpy()
    else:
        for layer in (cbn.gain, cbn.bias):
            layer.eval()
        gamma, beta = (
            layer.weight_orig.numpy()
            / (layer.weight_u.numpy() @ layer.weight_orig.numpy() @ layer.weight_v.numpy())
            for layer in (cbn.gain, cbn.bias)
        )
        gamma = 1 + gamma
    want = gamma[y][:, :, None, None] * normal + beta[y][:, :, None, None]
    np.testing.assert_allclose(cbn(tensor(x), tensor(y)).numpy(), want, rtol=1e-3, atol=1e-3)
    assert [n for n, _ in cbn.bn.named_parameters()] == [
        "_mean",
        "_variance",
    ]  # no affine map of its own


def test_last_batch_norm_has_the_forms_eps(model):
    assert [
        model.Generator(tiny(model, f)).bn._epsilon for f in ("sagan", "mmgen", "mmgen-biggan")
    ] == [
        1e-5,
        1e-4,
        1e-5,
    ]


# ---- blocks and attention against numpy ----


def conv(layer, x):
    """Convolution of an eval-mode SNConv2D in numpy, sigma from its stored u and v."""
    W = layer.weight_orig.numpy().astype(np.float64)
    W = W / (layer.weight_u.numpy() @ W.reshape(len(W), -1) @ layer.weight_v.numpy())
    k = W.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    H, Wd = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = sum(
        np.einsum("oi,nihw->nohw", W[:, :, a, b], x[:, :, a : a + H, b : b + Wd])
        for a in range(k)
        for b in range(k)
    )
    return out if layer.bias is None else out + layer.bias.numpy().reshape(1, -1, 1, 1)


def relu(x):
    return np.maximum(x, 0)


def pool(x):
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))


def test_generator_block(model):
    """cBN, ReLU, up, conv, cBN, ReLU, conv; skip: up, then the 1x1 convolution."""
    block = randomize(model.GenBlock(5, 4, tiny(model)))
    block.eval()
    x, y = RNG(2).standard_normal((2, 5, 4, 4)).astype("float32"), np.array([1, 0])

    def up(x):
        return x.repeat(2, 2).repeat(2, 3)

    def cbn(layer, x):
        return layer(tensor(x.astype("float32")), tensor(y)).numpy()

    h = conv(block.snconv2d1, up(relu(cbn(block.cond_bn1, x))))
    want = conv(block.snconv2d2, relu(cbn(block.cond_bn2, h))) + conv(block.snconv2d0, up(x))
    np.testing.assert_allclose(block(tensor(x), tensor(y)).numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("skip_relu", [False, True])
@pytest.mark.parametrize("i, o, down", [(4, 6, True), (4, 4, True), (4, 6, False), (4, 4, False)])
def test_discriminator_block(model, skip_relu, i, o, down):
    """ReLU, conv, ReLU, conv, pool; skip: x (or ReLU(x)), 1x1 convolution where anything changes,
    then pool.
    """
    block = randomize(model.DiscBlock(i, o, down, tiny(model, skip_relu=skip_relu)))
    block.eval()
    x = RNG(3).standard_normal((2, i, 4, 4)).astype("float32")
    want = conv(block.snconv2d2, relu(conv(block.snconv2d1, relu(x))))
    skip = relu(x) if skip_relu else x
    if down or i != o:
        want = want + conv(block.snconv2d0, skip)
    else:
        assert block.snconv2d0 is None
        want = want + skip
    want = pool(want) if down else want
    np.testing.assert_allclose(block(tensor(x)).numpy(), want, rtol=1e-4, atol=1e-4)


def test_skip_relu_is_told_to_every_block(model):
    for value in (True, False):
        D = model.Discriminator(tiny(model, skip_relu=value))
        assert [D.block1.skip_relu, D.block2.skip_relu, D.block3.skip_relu] == [value] * 3


@pytest.mark.parametrize("skip_relu", [False, True])
def test_discriminators_first_block_has_no_leading_relu(model, skip_relu):
    D = randomize(model.Discriminator(tiny(model, skip_relu=skip_relu)))
    D.eval()
    block, x = D.opt_block1, RNG(4).standard_normal((2, 3, 8, 8)).astype("float32")
    want = pool(conv(block.snconv2d2, relu(conv(block.snconv2d1, x)))) + conv(
        block.snconv2d0, pool(x)
    )
    np.testing.assert_allclose(block(tensor(x)).numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_attention(model, bias):
    import paddle

    attention = randomize(model.SelfAttention(16, tiny(model, attention_bias=bias)))
    attention.eval()
    assert (attention.snconv1x1_g.bias is not None) == bias
    x = RNG(5).standard_normal((2, 16, 4, 6)).astype("float32") * 0.3

    def pooled(x):
        return x.reshape(2, -1, 2, 2, 3, 2).max((3, 5)).reshape(2, -1, 6)

    theta = conv(attention.snconv1x1_theta, x).reshape(2, 2, 24)
    phi, g = pooled(conv(attention.snconv1x1_phi, x)), pooled(conv(attention.snconv1x1_g, x))
    want = np.empty((2, 8, 24))
    for n in range(2):
        for q in range(24):
            score = np.array([theta[n, :, q] @ phi[n, :, k] for k in range(6)])  # no 1 / sqrt(d)
            score = np.exp(score - score.max())
            want[n, :, q] = g[n] @ (score / score.sum())
    want = x + attention.sigma.item() * conv(attention.snconv1x1_attn, want.reshape(2, 8, 4, 6))
    np.testing.assert_allclose(attention(tensor(x)).numpy(), want, rtol=1e-4, atol=1e-4)
    attention.sigma.set_value(paddle.zeros([1]))
    assert np.array_equal(attention(tensor(x)).numpy(), x)


def test_attention_follows_the_first_block_of_its_side(model):
    """D at 32 px has three blocks of side 8: attention at 8 acts once, between the first and the
    second of them.
    """
    D = randomize(model.Discriminator(tiny(model, d_attention=(8,))))
    D.eval()
    x, y = (
        tensor(RNG(6).standard_normal((2, 3, 32, 32)).astype("float32")),
        tensor(np.array([0, 1])),
    )
    h = D.block3(D.block2(D.self_attn["8"](D.block1(D.opt_block1(x))))).numpy()
    h = relu(h.astype(np.float64)).sum((2, 3))  # the sum, not the mean
    W, E = (layer.weight().numpy() for layer in (D.snlinear1, D.sn_embedding1))
    want = h @ W[:, 0] + D.snlinear1.bias.item() + (E[[0, 1]] * h).sum(1)
    np.testing.assert_allclose(D(x, y).numpy(), want, rtol=1e-4)


def test_generator_tail(model):
    """linear, read as (channels, 4, 4); blocks with attention between; BN, ReLU, convolution,
    tanh.
    """
    G = randomize(model.Generator(tiny(model)))
    G.eval()
    z, y = tensor(RNG(7).standard_normal((2, 6)).astype("float32") * 0.1), tensor(np.array([0, 1]))
    h = (z.numpy() @ G.snlinear0.weight().numpy() + G.snlinear0.bias.numpy()).reshape(2, 32, 4, 4)
    h = G.block3(G.self_attn["16"](G.block2(G.block1(tensor(h), y), y)), y).numpy()
    bn = [
        getattr(G.bn, k).numpy().reshape(1, -1, 1, 1)
        for k in ("_mean", "_variance", "weight", "bias")
    ]
    h = (h - bn[0]) / np.sqrt(bn[1] + 1e-5) * bn[2] + bn[3]
    np.testing.assert_allclose(G(z, y).numpy(), np.tanh(conv(G.snconv2d1, relu(h))), atol=1e-4)
