"""test.py: which latents and labels are drawn, which weights and statistics are used, what is
written.
"""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.images import to_uint8
from shared_metrics.process import rng
from shared_metrics.runs import checkpoint
from shared_metrics.testing import latents
from tests.conftest import run_cli
from tests.shared_metrics.test_judges_accuracy import Brightness


@pytest.fixture
def sagan(paper):
    return paper("sagan")


def small_generator(sagan, seed=0):
    arch = sagan.model.architecture("mmgen", 32, 3, z_dim=8, g_conv_dim=2, d_conv_dim=4)
    paddle.seed(seed)
    return sagan.model.Generator(arch)


def test_labels_as_often_as_in_a_data_set(sagan, tmp_path):
    for name, count in (("a", 1), ("b", 3)):
        for i in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (2, 2)).save(tmp_path / name / f"{i}.png")
    args = sagan.test.parse_args(f"--num_samples 2000 --test_data_path {tmp_path}".split())
    names, seeds, labels = sagan.test.choose_images(args, 2, [])
    assert args.labels == "data" and abs(labels.mean() - 0.75) < 0.03
    assert names == ["a", "b"] and seeds.tolist() == list(range(2000))
    with pytest.raises(UserError, match=r"holds 2 classes, the generator knows 3"):
        sagan.test.choose_images(args, 3, [])


def test_uniform_labels_are_those_of_earlier_records(sagan):
    """floor(3 u) of each seed's u: what a record of 50,000 uniform images was made of."""
    args = sagan.test.parse_args(["--num_samples", "200"])
    _, seeds, labels = sagan.test.choose_images(args, 3, [])
    draws = [rng(seed, "label").random() for seed in range(200)]
    assert labels.tolist() == [int(3 * u) for u in draws]
    assert set(labels.tolist()) == {0, 1, 2}


def test_standing_statistics_are_the_mean_over_fresh_batches(sagan):
    """The first BatchNorm sees the stem's output, which does not depend on other layers: its mean
    can be worked out.
    """
    G = small_generator(sagan)
    sagan.test.set_bn_stats(G, "standing", G.arch, 3, 16)
    draw = rng(0, "standing")
    means = []
    for _ in range(3):
        z = draw.standard_normal((16, 8), dtype=np.float32)
        draw.integers(3, size=16)
        means.append(G.snlinear0(paddle.to_tensor(z)).numpy().reshape(16, -1, 16).mean((0, 2)))
    assert np.allclose(G.block1.cond_bn1.bn._mean.numpy(), np.mean(means, 0), atol=1e-5)
    assert not any(layer.training for layer in G.sublayers())


def test_batch_statistics_depend_on_the_batch_and_leave_spectral_norm_alone(sagan):
    G = small_generator(sagan)
    u = G.snlinear0.weight_u.numpy().copy()
    y = paddle.zeros([4], "int64")
    z = paddle.to_tensor(latents(range(4), 8))
    sagan.test.set_bn_stats(G, "running", G.arch, 1, 4)
    alone, beside = G(z[:2], y[:2]).numpy(), G(z, y).numpy()[:2]
    assert np.allclose(alone, beside, atol=1e-6)
    sagan.test.set_bn_stats(G, "batch", G.arch, 1, 4)
    alone, beside = G(z[:2], y[:2]).numpy(), G(z, y).numpy()[:2]
    assert not np.allclose(alone, beside, atol=1e-3)
    assert np.array_equal(u, G.snlinear0.weight_u.numpy())


def saved(sagan, path):
    """A checkpoint whose averaged generator draws grey everywhere and whose raw one does not."""
    G = small_generator(sagan)
    raw = checkpoint.network_state(G)
    grey = {
        k: v * 0 if k.startswith("snconv2d1.bias") or k.endswith("bn.weight") else v
        for k, v in raw.items()
    }
    state = {"generator": raw, "generator_ema": grey, "architecture": G.arch.to_dict()}
    state |= {"classes": ["cat", "dog", "owl"], "args": {"recipe": "cifar10"}}
    return checkpoint.save_checkpoint(path, 3, state, 0)


def test_images_grid_and_record(sagan, tmp_path):
    path = saved(sagan, tmp_path)
    flags = f"--device cpu --pretrained_model {path} --seeds 0-2,9 --labels dog,owl".split()
    flags += ["--batch_size", "3"]
    run_cli("sagan", "test.py", *flags, "--output_dir", tmp_path / "raw", "--no_ema", "--film", 2)
    names = sorted(p.name for p in (tmp_path / "raw" / "images").iterdir())
    assert names == [f"seed{s:05d}_class{y:03d}.png" for s in (0, 1, 2, 9) for y in (1, 2)]
    G = small_generator(sagan)
    G.eval()
    expected = G(paddle.to_tensor(latents([9], 8)), paddle.to_tensor([2]))
    image = np.asarray(Image.open(tmp_path / "raw" / "images" / "seed00009_class002.png"))
    assert np.abs(image - to_uint8(expected.numpy())[0].astype(int)).max() <= 1
    record = json.loads((tmp_path / "raw" / "results.json").read_text())
    assert record["checkpoint"]["weights"] == "raw" and record["checkpoint"]["iteration"] == 3
    assert record["checkpoint"]["sha256"] == files.file_sha256(path)
    assert record["samples"]["number"] == 8 and record["recipe"] == "cifar10"
    assert record["samples"]["seed"] == "0-2,9" and record["samples"]["labels"] == "dog,owl"
    assert {"score": "fid", "value": 9.4252} == {
        k: record["published"][3][k] for k in ("score", "value")
    }
    assert Image.open(tmp_path / "raw" / "grid.png").height > 2 * 32
    with Image.open(tmp_path / "raw" / "film.gif") as film:  # four seeds, two classes
        assert film.n_frames == 8 and film.width > 2 * 32

    run_cli("sagan", "test.py", *flags, "--output_dir", tmp_path / "ema")
    image = np.asarray(Image.open(tmp_path / "ema" / "images" / "seed00009_class002.png"))
    assert (image == 128).all()
    assert (
        json.loads((tmp_path / "ema" / "results.json").read_text())["checkpoint"]["weights"]
        == "ema"
    )

    again = run_cli("sagan", "test.py", *flags, "--output_dir", tmp_path / "ema", code=2)
    assert "--overwrite" in again.stderr and "Traceback" not in again.stderr
    both = run_cli(
        "sagan", "test.py", *flags, "--num_samples", 5, "--output_dir", tmp_path / "both", code=2
    )
    assert "--num_samples" in both.stderr and not (tmp_path / "both").exists()


def test_class_accuracy_beside_that_of_real_images(sagan, tmp_path, monkeypatch, capsys):
    """The averaged generator draws grey 128 alone, which this classifier takes for the class of 120
    to 179: an owl.
    """
    classifier = type("Named", (Brightness,), {"classes": ["cat", "dog", "owl"]})()
    monkeypatch.setattr("shared_metrics.judges.accuracy.load_classifier", lambda *_: classifier)
    for name, colour in (("cat", 10), ("dog", 70), ("owl", 70)):
        (tmp_path / "real" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (colour,) * 3).save(tmp_path / "real" / name / "0.png")
    path = saved(sagan, tmp_path)
    flags = f"--device cpu --pretrained_model {path} --seeds 0-2 --labels dog,owl --metrics acc"
    flags += f" --classifier x --test_data_path {tmp_path / 'real'} --output_dir {tmp_path / 'out'}"
    sagan.test.main(flags.split())
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["scores"] == {"class_accuracy": 0.5, "class_accuracy_real": 2 / 3}
    assert list(record["per_class"]) == ["cat", "dog", "owl"]
    assert record["per_class"] == {
        "dog": {"class_accuracy": 0.0, "class_accuracy_real": 1.0},
        "owl": {"class_accuracy": 1.0, "class_accuracy_real": 0.0},
        "cat": {"class_accuracy_real": 1.0},
    }
    assert record["classifier"] == {"model": "brightness"} and record["inception"] is None
    assert "class_accuracy = 0.5\n" in capsys.readouterr().out

    (tmp_path / "real" / "owl").rename(tmp_path / "real" / "eagle")
    with pytest.raises(UserError, match="holds no class folder owl"):
        sagan.test.main([*flags.split(), "--overwrite"])
    (tmp_path / "real" / "eagle").rename(tmp_path / "real" / "owl")
    with pytest.raises(UserError, match="--classifier: is for --metrics acc"):
        sagan.test.main([*flags.replace("--metrics acc", "--metrics none").split(), "--overwrite"])


def test_bare_weights_take_the_recipes_form(sagan, tmp_path):
    G = small_generator(sagan)
    weights.save(checkpoint.network_state(G), tmp_path / "bare.pdparams")
    args = sagan.test.parse_args("--recipe cifar10 --z_dim 8 --g_conv_dim 2".split())
    found = sagan.convert.read_weights(tmp_path / "bare.pdparams")
    arch = sagan.test.architecture_of(found, args)
    assert (arch.num_classes, arch.imsize, arch.cbn, arch.g_attention) == (3, 32, "one_plus", (16,))
    weights.load_into(sagan.model.Generator(arch), found["generator"], "generator", "x")


def test_what_a_file_tells_is_not_told_otherwise(sagan):
    arch = sagan.model.architecture("mmgen", 32, 3, z_dim=8, g_conv_dim=2, d_conv_dim=4)
    state = {"architecture": arch.to_dict()}
    for flag in ("--z_dim 9", "--imsize 64", "--g_conv_dim 3", "--g_attention none"):
        args = sagan.test.parse_args(["--pretrained_model", "w", *flag.split()])
        with pytest.raises(UserError, match=f"{flag.split()[0]} .*: w tells its own, .*leave it"):
            sagan.test.architecture_of(state, args)
    args = sagan.test.parse_args("--z_dim 8 --imsize 32".split())
    assert sagan.test.architecture_of(state, args) == arch


def test_wrong_width_lists_the_shapes(sagan, tmp_path):
    weights.save(checkpoint.network_state(small_generator(sagan)), tmp_path / "bare.pdparams")
    flags = [
        "--device",
        "cpu",
        "--pretrained_model",
        tmp_path / "bare.pdparams",
        "--recipe",
        "cifar10",
    ]
    failed = run_cli("sagan", "test.py", *flags, "--output_dir", tmp_path / "out", code=2)
    line = failed.stderr.strip().splitlines()[-1]
    assert "snlinear0.weight_orig" in line and "[8, 128]" in line.replace("(", "[").replace(
        ")", "]"
    )
    assert "Traceback" not in failed.stderr


def test_a_failing_start_keeps_the_old_images(sagan, tmp_path):
    (tmp_path / "images").mkdir()
    old = tmp_path / "images" / "seed00000_class000.png"
    old.write_bytes(b"old")
    main = sagan.test.process.command(sagan.test.main)
    for flags in (
        ["--pretrained_model", "/nowhere"],
        ["--pretrained_model", str(saved(sagan, tmp_path)), "--metrics", "fid"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    *flags,
                    "--device",
                    "cpu",
                    "--overwrite",
                    "--output_dir",
                    str(tmp_path),
                    "--inception_weights",
                    "random",
                ]
            )
        assert stopped.value.code == 2 and old.read_bytes() == b"old"


def test_a_damaged_checkpoint_is_named(sagan, tmp_path):
    path = saved(sagan, tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=path.name):
        sagan.convert.read_weights(path)


def test_no_ema_reaches_published_files(sagan, tmp_path):
    """A file with an averaged and a raw generator, in MMGeneration's layout: each can be drawn
    from.
    """
    from tests.sagan.published_layouts import mmgen_file, random_states, save

    arch = small_generator(sagan).arch
    (raw, D), (average, _) = (random_states(sagan.model, arch, seed) for seed in (0, 1))
    path = save(tmp_path / "published.pth", mmgen_file(raw, D, bgr=False, ema=average))
    for ema, state in ((None, average), (True, average), (False, raw)):
        read = sagan.convert.read_weights(path, ema=ema)
        assert np.allclose(
            read["generator"]["snlinear0.weight_orig"], state["snlinear0.weight_orig"]
        )
        assert read["source"]["ema"] == (ema is not False)


def test_test_data_of_other_classes_are_refused_by_name(sagan, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    args = sagan.test.parse_args(f"--num_samples 4 --test_data_path {tmp_path}".split())
    assert sagan.test.choose_images(args, 2, ["cat", "dog"])[0] == ["cat", "dog"]
    assert sagan.test.choose_images(args, 2, [])[0] == ["cat", "dog"]
    with pytest.raises(UserError, match="--test_data_path .*: holds no class folder owl"):
        sagan.test.choose_images(args, 2, ["cat", "owl"])
