"""Gradient penalties of D's whose last layer has as many patches as usual pictures give it."""

import importlib

import numpy as np
import paddle
import pytest

from shared_metrics import fast

CRITICS = {
    "stargan": {"image_size": 48, "d_base_dims": 2, "d_repeat_num": 3, "g_repeat_num": 1},
    "cyclegan": {"d_base_dims": 2},
    "pix2pix": {"d_base_dims": 2},
    "attgan": {"image_size": 64, "d_base_dims": 2, "d_fc_dim": 4, "n_layers": 3},
    "stgan": {"image_size": 64, "d_base_dims": 2, "d_fc_dim": 4},
}


@pytest.mark.parametrize("name", CRITICS)
def test_the_penalty_is_differentiated_as_by_plain_convolutions(name, paper, monkeypatch):
    paper("classic_gans")
    model = importlib.import_module(f"{name}.model")
    trainer = importlib.import_module(f"{name}.trainer")
    arch = model.Architecture(**CRITICS[name])
    paddle.seed(0)
    channels = {"cyclegan": 3, "pix2pix": 6}.get(name, 3)
    D = model.Discriminator(arch, channels) if name == "cyclegan" else model.Discriminator(arch)
    side = getattr(arch, "image_size", 88)
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((2, 2, channels, side, side), dtype=np.float32)
    real, fake = map(paddle.to_tensor, pictures)
    results = []
    for on_cpu in (fast._on_cpu, lambda x: False):
        monkeypatch.setattr(fast, "_on_cpu", on_cpu)
        D.clear_gradients()
        alpha = paddle.full([2, 1, 1, 1], 0.5)
        trainer.gradient_penalty(D, real, fake, alpha).backward()
        results.append([p.grad.numpy() for p in D.parameters() if p.grad is not None])
    assert results[0]
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1.0, np.abs(want).max()))
