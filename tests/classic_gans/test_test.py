"""test.py and infer.py: what is drawn, from what, named how, as the training showed it."""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import efficientnet, weights
from shared_metrics.errors import UserError
from tests.classic_gans.commands import TINY
from tests.conftest import run_cli, shared_dir


def read(path):
    return np.asarray(Image.open(path))


def record(folder):
    return json.loads((folder / "results.json").read_text())


def names(folder):
    return sorted(path.stem for path in (folder / "images").iterdir())


@pytest.fixture
def trained(run, tmp_path):
    """Function that trains a model for two iterations and returns its folder, which holds a sheet;
    at a rate at which its pictures are already told apart.
    """

    def train(name, *flags):
        words = [*TINY[name], "--max_iter", 2, "--output", "run", "--learning_rate", 0.05]
        words += ["--sample_every", 2]
        run("train", *words, *flags)
        return tmp_path / "run"

    return train


@pytest.fixture
def drawn(run, tmp_path):
    """Function that draws by test.py and returns the folder."""

    def draw(name, *flags):
        run("test", "--init_model", "run", "--device", "cpu", "--output", name, *flags)
        return tmp_path / name

    return draw


# ---- digits


def test_each_class_from_each_seed(trained, drawn, gans_drawing):
    trained("CGAN")
    folder = drawn("a")
    assert len(names(folder)) == 100 and names(folder)[-1] == "seed00009_class009"
    assert {"grid.png", "interpolation.png"} <= {path.name for path in folder.iterdir()}
    few = drawn("b", "--labels", "3,7", "--per_class", 2, "--seed", 5, "--batch_size", 3)
    assert names(few) == [f"seed0000{s}_class00{c}" for s in (5, 6) for c in (3, 7)]
    for name in names(few):  # whatever is drawn beside it
        assert np.array_equal(read(few / f"images/{name}.png"), read(folder / f"images/{name}.png"))
    result = record(few)
    assert result["paper"] == "cgan" and result["dataset"] == "mnist"
    assert result["samples"]["number"] == 4 and result["samples"]["classes_drawn"] == 2
    assert result["classes"] == [str(i) for i in range(10)]
    assert set(result["scores"]) == {"spread"} and result["architecture"]["n_classes"] == 10


@pytest.fixture
def gans_drawing(paper):
    paper("classic_gans")
    import drawing

    return drawing


def test_latents_can_be_drawn_elsewhere(gans_drawing):
    z = gans_drawing.latents([3, 2**32 - 1], 4)
    assert z.dtype == np.float32 and np.abs(z).max() <= 1
    assert np.array_equal(z[0], np.random.RandomState(3).uniform(-1, 1, 4).astype("float32"))


def test_a_number_of_pictures_is_of_random_classes(trained, drawn):
    trained("CGAN")
    folder = drawn("a", "--n_samples", 32)
    assert len(names(folder)) == 32 and record(folder)["samples"]["labels"] == "uniform"
    assert 5 < record(folder)["samples"]["classes_drawn"] <= 10


def test_dcgan_draws_seeds_and_is_told_no_class(trained, drawn, run):
    trained("DCGAN")
    folder = drawn("a", "--num_samples", 12)
    assert names(folder) == [f"seed{seed:05d}" for seed in range(12)]
    flags = ["--init_model", "run", "--output", "b", "--labels", "3"]
    assert "DCGAN is told no class" in run("test", *flags, code=2).err


def test_interpolation_runs_from_one_seed_to_the_next(trained, drawn):
    trained("CGAN")
    folder = drawn("a", "--seeds", "4,9", "--labels", "3", "--batch_size", 1, "--film", 3)
    with Image.open(folder / "film.gif") as film:  # to seed 9 and back
        assert film.n_frames == 6
    (cells,) = panels(read(folder / "interpolation.png"), rows=1, columns=10, side=28)
    assert np.array_equal(cells[0], read(folder / "images/seed00004_class003.png"))
    assert np.array_equal(cells[-1], read(folder / "images/seed00009_class003.png"))
    assert not np.array_equal(cells[4], cells[0])


def test_the_statistics_of_batchnorm_are_a_choice(trained, drawn):
    trained("CGAN")
    running = drawn("a", "--labels", "1", "--per_class", 4)
    batch = drawn("b", "--labels", "1", "--per_class", 4, "--bn_stats", "batch")
    name = "images/seed00000_class001.png"
    assert not np.array_equal(read(running / name), read(batch / name))
    assert record(batch)["checkpoint"]["bn_stats"] == "batch"


# ---- pictures from pictures


def panels(sheet, rows, columns, side):
    """The rows of a sheet, each a list of its pictures; titles stand above and to the left."""
    step = side + 2
    result = []
    for y in range(sheet.shape[0] - rows * step, sheet.shape[0], step):
        row = []
        for x in range(sheet.shape[1] - columns * step, sheet.shape[1], step):
            row.append(sheet[y : y + side, x : x + side])
        result.append(row)
    return result


@pytest.mark.parametrize(
    "flags",
    [[], ["--dropout", "False"], ["--norm_type", "instance_norm"], ["--direction", "BtoA"]],
)
def test_the_training_shows_what_test_draws(trained, drawn, flags):
    """To the pixel: BatchNorm by the picture's own statistics, dropout, sizes, order of files."""
    sheet = read(next((trained("Pix2pix", *flags) / "samples").iterdir()))
    folder = drawn("a")
    letters = "BA" if "BtoA" in flags else "AB"
    rows = panels(sheet, rows=3, columns=3, side=32)
    for number, (source, fake, wanted) in zip((7, 8, 9), rows, strict=True):
        for kind, shown in (
            (f"input{letters[0]}", source),
            (f"fake{letters[1]}", fake),
            (f"input{letters[1]}", wanted),
        ):
            picture = read(folder / f"images/{kind}_{number}_{letters[0]}.png")
            assert np.array_equal(picture, shown), (kind, number)
    assert record(folder)["samples"]["direction"] == "to".join(letters)


def test_cyclegans_training_shows_what_test_draws(trained, drawn):
    sheet = read(next((trained("CycleGAN") / "samples").iterdir()))
    forth = drawn("a")
    back = drawn("b", "--input_style", "B", "--batch_size", 2)
    for number, row in zip((7, 8, 9), panels(sheet, rows=3, columns=8, side=32), strict=True):
        for place, kind in enumerate(("inputA", "fakeB", "cycA")):
            picture = read(forth / f"images/{kind}_{number}_A.png")
            assert np.array_equal(picture, row[place]), (kind, number)
        for place, kind in enumerate(("inputB", "fakeA", "cycB")):
            # Instance norm looks at one picture alone, so batches of two draw the same.
            picture = read(back / f"images/{kind}_{number}_B.png").astype(int)
            assert np.abs(picture - row[4 + place]).max() <= 1, (kind, number)


def test_distances_by_hand(trained, drawn):
    trained("Pix2pix")
    folder = drawn("a")
    expected = {"l1": [], "l1_input": []}
    for number in (7, 8, 9):
        pictures = [
            read(folder / f"images/{kind}_{number}_A.png").astype(float)
            for kind in ("fakeB", "inputA", "inputB")
        ]
        expected["l1"].append(np.abs(pictures[0] - pictures[2]).mean() / 255)
        expected["l1_input"].append(np.abs(pictures[1] - pictures[2]).mean() / 255)
    for name, values in expected.items():
        assert record(folder)["scores"][name] == pytest.approx(np.mean(values), rel=1e-6)
    assert expected["l1_input"][0] > 0


def test_what_a_classifier_reads_in_the_pictures(paper, monkeypatch):
    """The stand-in finds an orange as likely as a picture is red, a banana as it is green."""

    class Colours:
        info = {}

        def __init__(self, weights):
            self.network = self

        def features(self, images):
            return images.mean((1, 2))

        def logits(self, features):
            logits = np.full((len(features), 1000), 1e9, np.float32)  # of no class that is asked
            logits[:, efficientnet.class_indices(["n07747607", "n07753592"])] = features[:, :2]
            return logits

    monkeypatch.setattr("shared_metrics.judges.classifier.EfficientNetClassifier", Colours)
    translate = paper("classic_gans").translate
    red, green = np.eye(3, dtype=np.uint8)[:2, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    drawn, inputs = np.stack([green, green, red, green]), np.stack([red, red, red, green])
    for target, shares in (("B", (0.75, 0.25)), ("A", (0.25, 0.75))):
        readings = translate.Readings("n07747607,n07753592", target, "auto")
        readings.update(drawn[:3], inputs[:3])
        readings.update(drawn[3:], inputs[3:])
        names = ("read_as_target", "read_as_target_input")
        assert readings.result() == dict(zip(names, shares, strict=True))
    for wnids, told in (("n07747607", "give two"), ("n07747607,orange", "--wnids: orange: not")):
        with pytest.raises(UserError, match=told):
            translate.Readings(wnids, "B", "auto")


def test_eval_and_dropout_change_what_is_drawn(trained, drawn):
    trained("Pix2pix", "--lambda_L1", 1)
    results = {}
    for name, flags in {
        "plain": [],
        "again": [],
        "eval": ["--eval"],
        "still": ["--dropout", "False"],
        "seed": ["--seed", 1],
    }.items():
        results[name] = read(drawn(name, *flags) / "images/fakeB_7_A.png")
    assert np.array_equal(results["plain"], results["again"])
    for name in ("eval", "still", "seed"):
        assert not np.array_equal(results["plain"], results[name]), name


def test_batches_of_batchnorm_are_told(trained, drawn, run):
    trained("Pix2pix")
    flags = ["--init_model", "run", "--output", "a", "--n_samples", 2]
    assert "each result depends on its neighbours" in run("test", *flags).out
    flags = ["--init_model", "run", "--output", "b", "--batch_size", 2, "--eval"]
    assert "neighbours" not in run("test", *flags).out


@pytest.fixture
def folder_of_all_sizes(tmp_path):
    """Sizes that no 4 divides, one smaller than any edge, in several modes and sub-folders."""
    folder = tmp_path / "mine"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (width, height), mode in (
        ("wide.png", (47, 34), "RGB"),
        ("grey.png", (33, 33), "L"),
        ("palette.png", (40, 32), "P"),
        ("more/tiny.png", (3, 5), "RGB"),
        ("more/deep.tiff", (36, 34), "I;16"),
    ):
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
        else:
            pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            image = Image.fromarray(pixels).convert(mode)
        image.save(folder / name)
    return folder


def test_any_size_with_the_same_names(trained, drawn, folder_of_all_sizes):
    trained("CycleGAN")
    folder = drawn("a", "--input", folder_of_all_sizes, "--image_size", 0, "--batch_size", 3)
    sizes = {"wide": (47, 34), "grey": (33, 33), "palette": (40, 32)}
    sizes |= {"more_tiny": (3, 5), "more_deep": (36, 34)}
    for kind in ("inputA", "fakeB", "cycA"):
        for name, size in sizes.items():
            assert Image.open(folder / f"images/{kind}_{name}.png").size == size
    resized = drawn("b", "--input", folder_of_all_sizes / "wide.png", "--image_size", 40)
    assert names(resized) == ["cycA_wide", "fakeB_wide", "inputA_wide"]
    assert Image.open(resized / "images/fakeB_wide.png").size == (40, 40)
    assert not record(resized)["scores"]


def test_sizes_that_fit_are_drawn_as_they_are(trained, drawn, tmp_path, paper):
    out = trained("CycleGAN")
    pixels = np.random.default_rng(0).integers(0, 256, (36, 44, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    folder = drawn("a", "--input", tmp_path / "x.png", "--image_size", 0)
    state = weights.load(out / "checkpoints" / "iter_0000002.pdparams")
    room = paper("classic_gans").rooms.room("CycleGAN")
    make = room.generators(room.Architecture.from_dict(state["architecture"]))["generator_A"]
    network = weights.build(make, state["generator_A"], "generator_A", "")
    x = paddle.to_tensor((pixels.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5, "float32")
    with paddle.no_grad():
        y = network(x).numpy()[0].transpose(1, 2, 0)
    difference = np.abs(read(folder / "images/fakeB_x.png") - (y * 127.5 + 127.5))
    assert difference.max() <= 1.01


def test_the_originals_commands(trained, run, data_dir):
    """A list of one column, the sizes and networks told once more, also where they are wrong."""
    trained("Pix2pix")
    pairs = data_dir / "pairs"
    (pairs / "testA.txt").write_text("testA/8_A.png\ntestA/7_A.png\n")
    flags = "--net_G unet_256 --norm_type batch_norm --n_samples 1 --crop_size 32 --g_base_dim 2"
    result = run(
        "infer", "--model_net", "Pix2pix", "--init_model", "run/checkpoints", "--image_size", 64,
        "--dataset_dir", pairs, "--test_list", "testA.txt", "--use_gpu", "False",
        "--output", "infer_result/", *flags.split(),
    )  # fmt: skip
    assert "note: --net_G unet_256: the file's is resnet_6block, which is used" in result.out
    assert "--norm_type" not in result.out and "--g_base_dim" not in result.out
    folder = pairs.parents[1] / "infer_result"
    assert names(folder) == ["fakeB_7_A", "fakeB_8_A", "inputA_7_A", "inputA_8_A"]
    assert Image.open(folder / "images/fakeB_7_A.png").size == (32, 32)  # the last word counts


# Section by section as the original's infer.py has them, with its own defaults.
INFER = (
    "--net_G resnet_9block --input_style A --norm_type batch_norm --crop_type none --use_gpu False "
    "--dropout False --g_base_dims 64 --ngf 64 --c_dim 13 --use_gru False --crop_size 32 "
    "--image_size 32 --load_height 128 --load_width 128 --crop_height 128 --crop_width 128 "
    "--selected_attrs Bald,Bangs --n_samples 2 --n_layers 5 --gru_n_layers 4 --noise_size 100 "
    "--label_nc 36 --no_instance False"
)


@pytest.mark.parametrize("name", list(TINY))
def test_all_of_the_originals_flags_are_taken(trained, run, data_dir, tmp_path, name):
    trained(name)
    pairs = data_dir / "pairs"
    (pairs / "list").write_text("testA/7_A.png\n")
    flags = ["--dataset_dir", pairs, "--test_list", pairs / "list", "--output", "a"]
    result = run("infer", "--model_net", name, "--init_model", "run", *INFER.split(), *flags)
    assert f"note: --label_nc 36: {name} does not read it" in result.out
    assert (tmp_path / "a" / "results.json").is_file()


def test_pairs_by_a_list_tell_what_was_wanted(trained, drawn, data_dir):
    trained("CycleGAN")
    (data_dir / "pairs" / "both").write_text("testA/8_A.png\ttestB/8_B.png\n")
    folder = drawn("a", "--test_list", "both", "--cycle", "False", "--input_style", "B")
    assert names(folder) == ["fakeA_8_B", "inputA_8_B", "inputB_8_B"]
    assert set(record(folder)["scores"]) == {"l1", "l1_input"}


def test_what_scores_compare_with(trained, paper, data_dir, tmp_path):
    """The wanted pictures of pairs, else the test set's of the domain, resized as what is drawn."""
    gans = paper("classic_gans")
    import test as command

    for name, letter, source in (
        ("Pix2pix", "B", "the wanted pictures"),
        ("CycleGAN", "A", f"test pictures of A in {data_dir / 'pairs'}"),
    ):
        trained(name, "--output", name)
        room = gans.rooms.room(name)
        words = ["--init_model", name, "--image_size", "16"]
        args = command.parser(room, gans.translate).parse_args(words)
        state = gans.convert.read_weights(tmp_path / name)
        direction = "AtoB" if name == "Pix2pix" else "BtoA"
        inputs, root = gans.translate.open_inputs(args, state, direction, 16, 3)
        real = gans.translate.real_pictures(args, inputs, root, letter)
        assert (real.name, real.number) == (source, 3)
        images = np.concatenate(list(real.read(2, 0, 1)))
        file = Image.open(data_dir / f"pairs/test{letter}/8_{letter}.png")
        expected = np.asarray(file.resize((16, 16), Image.Resampling.BICUBIC))
        assert np.abs(images[1].astype(int) - expected).max() <= 1


def test_published_weights_draw(run, tmp_path):
    folder = shared_dir("parity/pix2pix_junyanz")
    pixels = np.random.default_rng(0).integers(0, 256, (130, 128, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    flags = ["--init_model", folder / "latest_net_G.pth", "--model_net", "pix2pix"]
    flags += ["--input", tmp_path / "x.png", "--image_size", 0, "--output", "a"]
    run("test", *flags)
    assert Image.open(tmp_path / "a/images/fakeB_x.png").size == (128, 130)
    result = record(tmp_path / "a")
    assert result["checkpoint"]["source"]["family"] == "junyanz"
    assert result["samples"]["mode"] == {"norm": "batch", "dropout": True}
    run("test", "--init_model", folder, *flags[2:-1], "b")
    assert len(record(tmp_path / "b")["checkpoint"]["sha256"]) == 64


# ---- mistakes


def test_a_test_is_not_overwritten(trained, drawn, run, data_dir):
    trained("CycleGAN")
    drawn("a", "--num_samples", 1)
    error = run("test", "--init_model", "run", "--output", "a", code=2).err
    assert "holds 3 images already" in error and "--overwrite" in error
    drawn("a", "--num_samples", 2, "--overwrite")
    flags = ["--init_model", "run", "--output", data_dir / "pairs" / "testA"]
    assert "the data themselves lie in" in run("test", *flags, code=2).err


@pytest.mark.parametrize(
    "name, flags, message",
    [
        ("CGAN", ["--labels", "12"], "--labels 12: reaches past the 10 classes"),
        ("CGAN", ["--real", "x"], "--real x: is for --metrics"),
        ("Pix2pix", ["--direction", "BtoA"], "--direction BtoA: this generator was trained AtoB"),
        ("Pix2pix", ["--seeds", "1"], "--seeds: pictures are drawn from pictures"),
        ("Pix2pix", ["--input", "none.png"], "none.png: no such file"),
        ("CycleGAN", ["--dataset_dir", "none"], "none: no such folder"),
        ("CycleGAN", ["--direction=AtoB", "--input_style=B"], "name two directions"),
        ("CycleGAN", ["--model_net=CGAN"], "holds weights of CycleGAN, not of CGAN"),
    ],
)
def test_mistakes(trained, run, name, flags, message):
    trained(name)
    assert message in run("test", "--init_model", "run", "--output", "a", *flags, code=2).err


def test_two_pictures_of_one_name(trained, run, tmp_path):
    trained("CycleGAN")
    folder = tmp_path / "mine"
    (folder / "a").mkdir(parents=True)
    for name in ("a_b.png", "a/b.png"):
        Image.new("RGB", (32, 32)).save(folder / name)
    error = run("test", "--init_model=run", "--output=x", "--input", folder, code=2).err
    assert "would be drawn as a_b" in error and not (tmp_path / "x").exists()


def test_without_weights(run):
    assert "--init_model is missing" in run("test", code=2).err
    assert "--input" in run("test", "--model_net=cyclegan", "--help").out


def test_from_the_shell(data_dir, tmp_path):
    out = tmp_path / "run"
    flags = [*TINY["CGAN"], "--max_iter", 1, "--device", "cpu", "--data_dir", data_dir]
    run_cli("classic_gans", "train.py", *flags, "--output", out)
    done = run_cli("classic_gans", "infer.py", "--init_model", out, "--output", tmp_path / "a")
    assert "100 images in" in done.stdout
