"""Runner: the layer and its program give the same pictures, and the network is left as it is."""

import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from scripts import export
from shared_metrics import inference, native
from shared_metrics.inference import Runner
from shared_metrics.judges.exports import open_export
from tests.conftest import ROOT
from tests.scripts.test_export import SMALL

INFINITE = float("inf")
PADDLE_2 = paddle.__version__.startswith("2.")


def small_generator(paper, name):
    """(G of a paper in eval mode after some training steps, its inputs by export.py)."""
    alone = name in ("sagan", "acgan", "gaugan_simam")
    paper(name if alone else "classic_gans")
    model = importlib.import_module("model" if alone else f"{name}.model")
    arch = model.Architecture(**SMALL[name])
    paddle.seed(0)
    key, make = next(iter(export.generators(name, model, arch).items()))
    network = make()
    inputs = export.inputs_of(name, arch, key)
    network.train()
    for arrays in export.tries(inputs, [3, 3, 3]):
        network(*map(paddle.to_tensor, arrays))
    network.eval()
    return network, inputs


@pytest.mark.parametrize("name", SMALL)
def test_the_program_draws_as_the_layer_and_changes_nothing(name, paper):
    network, inputs = small_generator(paper, name)
    before = {key: t.numpy() for key, t in network.state_dict().items()}
    paddle.seed(5)
    random = paddle.randn([3]).numpy()
    paddle.seed(5)
    runner = Runner(network, pixels=INFINITE)
    for arrays in export.tries(inputs, [3, 2, 1]):
        expected = inference.run_layer(network, *arrays)
        pictures = runner(*arrays)
        assert np.abs(pictures - expected).max() <= 1e-5 * np.abs(expected).max()
    # Paddle 2 makes none of AC-GAN's: its layer draws then.
    assert runner.program is not None or (PADDLE_2 and name == "acgan")
    assert np.array_equal(paddle.randn([3]).numpy(), random)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(np.array_equal(after[key].numpy(), before[key]) for key in before)
    assert not network.training and all(p.grad is None for p in network.parameters())


@pytest.fixture
def network():
    """Pictures (N, 2, H, W) -> (N, 3, H, W), with BatchNorm and dropout; in eval mode."""
    paddle.seed(0)
    layers = nn.Conv2D(2, 3, 3, padding=1), nn.BatchNorm2D(3), nn.ReLU(), nn.Dropout(0.5)
    net = nn.Sequential(*layers)
    net.eval()
    return net


def pictures(number, side=8):
    return np.random.default_rng(0).standard_normal((number, 2, side, side), dtype=np.float32)


def test_a_program_is_made_once_enough_pixels_have_passed(network, monkeypatch):
    monkeypatch.setattr(inference, "PIXELS", 5 * 64)
    runner = Runner(network)
    for _ in range(2):
        runner(pictures(2))
        assert runner.program is None
    first = runner(pictures(1))
    assert runner.program is not None
    network[0].bias.set_value(network[0].bias + 1.0)  # it keeps the weights that it was made of
    assert np.array_equal(runner(pictures(1)), first)


def test_a_program_is_made_at_once_where_enough_pixels_will_come(network, monkeypatch):
    monkeypatch.setattr(inference, "PIXELS", 5 * 64)
    few = Runner(network, pixels=5 * 64 - 1)
    many = Runner(network, pixels=5 * 64)
    for runner in (few, many):
        runner(pictures(6))
    assert few.program is None and many.program is not None


def test_tensors_are_taken_too(network):
    x = paddle.to_tensor(pictures(2))
    for pixels in (0, INFINITE):
        expected = inference.run_layer(network, x)
        np.testing.assert_allclose(Runner(network, pixels)(x), expected, atol=1e-6)


def test_other_shapes_go_through_the_layer(network):
    runner = Runner(network, pixels=INFINITE)
    runner(pictures(2))
    wide = pictures(1, side=12)
    assert np.array_equal(runner(wide), inference.run_layer(network, wide))


@pytest.mark.skipif(PADDLE_2, reason="Paddle 2 convolves no empty batch")
def test_no_pictures_make_no_program(network):
    runner = Runner(network, pixels=INFINITE)
    assert runner(pictures(0)).shape == (0, 3, 8, 8) and runner.program is None
    runner(pictures(2))
    assert runner.program is not None and runner(pictures(0)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("index", [1, 3])
def test_statistics_of_the_batch_and_dropout_go_through_the_layer(index, network):
    network[index].train()
    runner = Runner(network, pixels=INFINITE)
    runner(pictures(4))
    assert runner.program is None
    network.eval()
    runner(pictures(4))
    assert runner.program is not None


def test_on_a_gpu_it_is_the_layer(network, monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    runner = Runner(network, pixels=INFINITE)
    assert np.array_equal(runner(pictures(2)), inference.run_layer(network, pictures(2)))
    assert runner.program is None


def test_a_program_that_fails_or_draws_others_is_never_used(network, monkeypatch):
    own = inference.program
    expected = inference.run_layer(network, pictures(2))

    def other(*how):
        run = own(*how)
        return lambda *inputs: 1.001 * run(*inputs)

    def failing(*how):
        raise RuntimeError("no such operator")

    def fatal(*how):
        raise SystemError("(Fatal) as Paddle says")

    for wrong in (other, failing, fatal):
        monkeypatch.setattr(inference, "program", wrong)
        runner = Runner(network, pixels=INFINITE)
        assert np.array_equal(runner(pictures(2)), expected)
        assert runner.program is None


def test_the_layer_draws_where_a_program_fails_later(network, monkeypatch):
    own = inference.program

    def failing(*how):
        run = own(*how)

        def small(x):
            if len(x) > 2:
                raise MemoryError
            return run(x)

        return small

    monkeypatch.setattr(inference, "program", failing)
    runner = Runner(network, pixels=INFINITE)
    assert np.array_equal(runner(pictures(3)), inference.run_layer(network, pictures(3)))
    assert runner.program is None


def test_a_network_that_draws_noise_itself_goes_through_the_layer():
    class Noisy(nn.Layer):
        def forward(self, x):
            return x + paddle.randn(x.shape)

    network = Noisy()
    network.eval()
    x = pictures(2)
    paddle.seed(3)
    expected = inference.run_layer(network, x)
    paddle.seed(3)
    runner = Runner(network, pixels=INFINITE)
    assert np.array_equal(runner(x), expected) and runner.program is None


QUIET = """
from shared_metrics import process
paddle = process.import_paddle()
from shared_metrics.inference import Runner
import numpy as np

class Residual(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 3, 1)

    def forward(self, x):
        return x + self.conv(x)

network = Residual()
network.eval()
runner = Runner(network, pixels=float("inf"))
runner(np.ones((1, 3, 8, 8), "float32"))
assert runner.program
"""


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
def test_instance_norm_in_a_program(affine, pooled, monkeypatch):
    """Each picture's own mean and variance, by float64, then the channel's scale and shift."""
    monkeypatch.setattr(inference, "POOLED", 0 if pooled else INFINITE)
    means = []
    monkeypatch.setattr(
        inference, "_mean", lambda x, own=inference._mean: means.append(1) or own(x)
    )
    how = None if affine else False
    layer = nn.InstanceNorm2D(3, epsilon=1e-3, weight_attr=how, bias_attr=how)
    scale = np.float32([1, -2, 0.5])
    if affine:
        layer.scale.set_value(scale)
        layer.bias.set_value(scale + 1)
    same = nn.Conv2D(3, 3, 1, bias_attr=False)  # a program needs some weights
    same.weight.set_value(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    network = nn.Sequential(same, layer, nn.ReLU())
    network.eval()
    x = 10 + np.random.default_rng(0).standard_normal((4, 3, 64, 40), dtype=np.float32)
    x = x * np.arange(1, 13, dtype=np.float32).reshape(4, 3, 1, 1)
    wide = x.astype(np.float64)
    variance = wide.var(axis=(2, 3), keepdims=True)
    expected = (wide - wide.mean(axis=(2, 3), keepdims=True)) / np.sqrt(variance + 1e-3)
    if affine:
        expected = expected * scale.reshape(3, 1, 1) + (scale + 1).reshape(3, 1, 1)
    got = inference.program(network, [x])(x)
    np.testing.assert_allclose(got, np.maximum(expected, 0), atol=2e-5)
    assert len(means) == (2 if pooled else 0)
    assert "forward" not in vars(layer)  # the network itself keeps Paddle's


def test_making_a_program_prints_nothing(tmp_path):
    script = tmp_path / "quiet.py"  # Paddle looks at a network's source
    script.write_text(QUIET)
    env = {name: value for name, value in os.environ.items() if name != "GLOG_minloglevel"}
    env["PYTHONPATH"] = str(ROOT)
    run = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout + run.stderr == ""


def test_the_deepest_generator_has_a_program(paper):
    """Rounding adds up in CycleGAN's 24 layers."""
    paper("classic_gans")
    model = importlib.import_module("cyclegan.model")
    paddle.seed(0)
    network = model.Generator(model.Architecture(net_G="resnet_9block", g_base_dims=64), 3, 3)
    network.eval()
    runner = Runner(network, pixels=INFINITE)
    runner(np.random.default_rng(0).uniform(-1, 1, (2, 3, 128, 128)).astype(np.float32))
    assert runner.program is not None


@pytest.mark.parametrize("kind", ["runner", "exported generator", "exported segmenter"])
def test_no_program_takes_paddles_threads(kind, tmp_path, monkeypatch):
    """Paddle Inference leaves one thread to the whole process, to a training too."""
    openmp = ctypes.CDLL(next(Path(paddle.__file__).parent.glob("libs/libiomp5.*")))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    network = nn.Conv2D(3, 2, 3)
    network.eval()
    picture = np.zeros((1, 3, 32, 32), np.float32)
    specs = [paddle.static.InputSpec([None, 3, 32, 32], "float32", "x")]
    program = native.save_program(network, tmp_path / "network", specs)
    before = openmp.omp_get_max_threads()
    try:
        if kind == "runner":
            runner = Runner(network, pixels=INFINITE)
            runner(picture)
            assert runner.program
        elif kind == "exported generator":
            export.runner(tmp_path / "network")([picture])
        else:
            open_export(program)(picture)
        assert openmp.omp_get_max_threads() == 3
    finally:
        paddle.base.core.set_num_threads(before)
