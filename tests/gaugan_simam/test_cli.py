"""train.py from its flags to its exit code: the original's commands run, what a user can get wrong
ends in one line.
"""

import json
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from scripts import make_toy_data
from shared_metrics import process, weights
from shared_metrics.runs import checkpoint
from tests.contract.papers import PAPERS

TINY = PAPERS["gaugan_simam"].tiny_flags
YAML = "configs/photopen.yaml"
# The networks of TINY as overrides of the yaml file.
SMALL = [
    "model.crop_size=32",
    "model.generator.ngf=1",
    "model.discriminator.ndf=2",
    "model.discriminator.num_D=2",
]
SMALL += [
    "model.discriminator.n_layers_D=2",
    "dataset.train.num_workers=0",
    "log_config.interval=1",
]


@pytest.fixture
def train(paper, capfd, monkeypatch):
    """Function that runs train.py's main in its folder on flags and returns (exit code, stdout,
    stderr).
    """
    folder = paper("gaugan_simam")
    monkeypatch.chdir(folder.folder)
    main = process.command(folder.train.main)

    def run(*flags):
        code = 0
        try:
            main([str(flag) for flag in flags])
        except SystemExit as stopped:
            code = stopped.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def parse(paper, monkeypatch):
    """train.parse_args on the words of a text, in the paper's folder."""
    folder = paper("gaugan_simam")
    monkeypatch.chdir(folder.folder)
    return lambda text="": folder.train.parse_args(text.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pairs and three held-out ones of 32 px, ids 0 to 4."""
    return make_toy_data.make(tmp_path_factory.mktemp("gaugan") / "data", "coco_stuff", 2, 8, 3, 32)


def one_line(stderr, *parts):
    """The last line of stderr names all parts, and there is no traceback."""
    line = stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    for part in parts:
        assert str(part) in line, line


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_originals_command_trains_with_its_yaml_and_overrides(train, data, tmp_path):
    override = [
        "model.generator.norm_G=spectralspadesyncbatch1x1",
        "model.batchSize=4",
        "dataset.train.batch_size=4",
    ]
    own = [f"dataset.train.content_root={data}", f"output_dir={tmp_path}", "total_iters=2"]
    flags = [
        "--config-file",
        YAML,
        "-o",
        *override,
        *SMALL,
        "--o",
        *own,
        "--device",
        "cpu",
        "--seed",
        0,
    ]
    code, printed, err = train(*flags)
    assert code == 0, err
    (out,) = tmp_path.iterdir()
    assert re.fullmatch(r"photopen-\d{4}-\d\d-\d\d-\d\d-\d\d", out.name)
    args = json.loads((out / "args.json").read_text())
    expected = {
        "norm_G": "spectralspadesyncbatch1x1",
        "batch_size": 4,
        "ngf": 1,
        "load_size": 0,
        "lambda_vgg": 0.0,
    }
    expected |= {
        "g_lr": 1e-4,
        "d_lr": 4e-4,
        "beta1": 0.0,
        "beta2": 0.999,
        "crop_size": 32,
        "name": "photopen",
    }
    assert {name: args[name] for name in expected} == expected
    assert (
        printed.count("plain BatchNorm takes syncbatch's place")
        == 1
        == printed.count("warning: no --vgg_weights")
    )
    assert "3 held-out pairs" in printed
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert {"log.txt", "log.jsonl", "curves.png", "samples/iter_0000002.png"} <= names
    assert Image.open(out / "samples/iter_0000002.png").height > 3 * 32
    assert (
        set(rows(out)[0]) >= {"g_ganloss", "g_featloss", "df_ganloss", "dr_ganloss"}
        and len(rows(out)) == 2
    )
    state = checkpoint.load_checkpoint(out / "checkpoints" / "iter_0000002.pdparams")
    assert (
        state["architecture"]["norm_G"] == "spectralspadesyncbatch1x1" and state["iteration"] == 2
    )


def engine_checkpoint(paper, path, iteration, adam=True):
    """A checkpoint as PaddleGAN's engine leaves it, of TINY's networks after an update; returns the
    trainer.
    """
    import paddle

    folder = paper("gaugan_simam")
    args = folder.train.parse_args([*TINY, "--iterations", "1", "--output_dir", str(path.parent)])
    arch = folder.model.Architecture(
        **{n: getattr(args, n) for n in folder.model.Architecture.__dataclass_fields__}
    )
    paddle.seed(7)
    nets = folder.model.Generator(arch), folder.model.Discriminator(arch)
    trainer = folder.trainer.Trainer(*nets, arch, args, range(8), None)
    ids, photos = (
        np.random.default_rng(0).integers(0, 13, (8, 32, 32)),
        np.zeros((8, 3, 32, 32), np.float32),
    )
    trainer.train_step(0, ids, ids, photos)
    state = {"epoch": iteration, "net_gen": checkpoint.network_state(trainer.G)}
    state["net_des"] = checkpoint.network_state(trainer.D)
    if adam:
        for name, update in (("optimG", trainer.update_G), ("optimD", trainer.update_D)):
            moments = update.optimizer.state_dict()
            state[name] = {k: v.numpy() for k, v in moments.items() if k != "master_weights"}
    weights.save(state, path)
    return trainer


@pytest.mark.parametrize("adam", [True, False])
def test_resume_from_the_engines_checkpoint(train, paper, data, tmp_path, adam):
    """With all rates 0 nothing moves but Adam's moments: what was in the file is in the run's own
    checkpoint.
    """
    path = tmp_path / "output_dir" / "photopen-2022-01-31-23-59" / "iter_3_checkpoint.pdparams"
    path.parent.mkdir(parents=True)
    before = engine_checkpoint(paper, path, 3, adam)
    flags = ["--data_path", data, "--output_dir", tmp_path / "out", "--g_lr", 0, "--d_lr", 0]
    code, printed, err = train(*TINY, *flags, "--iterations", 4, "--resume", path)
    assert code == 0, err
    assert [row["iteration"] for row in rows(tmp_path / "out")] == [4]
    assert (
        printed.count("its moments start from 0") == (0 if adam else 2)
        and "order starts anew" in printed
    )
    state = checkpoint.load_checkpoint(tmp_path / "out" / "checkpoints" / "iter_0000004.pdparams")
    for part, network in (("generator", before.G), ("discriminator", before.D)):
        for name, p in network.named_parameters():
            if not p.stop_gradient:
                assert np.array_equal(state[part][name], p.numpy()), name
    powers = {name: float(v.item()) for name, v in state["optimizer_d"]["beta2_pow_acc"].items()}
    assert set(np.round(list(powers.values()), 6)) == {round(0.9 ** (3 if adam else 2), 6)}


def test_resume_auto_goes_on_in_the_newest_folder_of_the_name(paper, tmp_path):
    new_folder = paper("gaugan_simam").train.new_folder
    first = new_folder(tmp_path, "photopen", "auto")
    assert re.fullmatch(r"photopen-\d{4}-\d\d-\d\d-\d\d-\d\d", first.name) and not first.exists()
    for name in (
        "photopen-2022-01-31-23-59",
        "photopen-2023-01-01-00-00",
        "other-2025-01-01-00-00",
    ):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "photopen-2024-01-01-00-00").mkdir()
    assert new_folder(tmp_path, "photopen", "auto").name == "photopen-2023-01-01-00-00"
    ours = tmp_path / "photopen-2022-01-31-23-59" / "checkpoints" / "iter_0000003.pdparams"
    assert new_folder(tmp_path, "photopen", str(ours)) == ours.parent.parent
    first.mkdir()
    assert new_folder(tmp_path, "photopen").name != first.name


def test_a_vae_with_less_memory_resumes_and_loads(train, data, tmp_path):
    flags = [
        *TINY,
        "--data_path",
        data,
        "--use_vae",
        "--nef",
        1,
        "--z_dim",
        4,
        "--accumulate",
        2,
        "--D_steps_per_G",
        2,
    ]
    code, _, err = train(*flags, "--output_dir", tmp_path / "out", "--iterations", 1)
    assert code == 0, err
    code, _, err = train(*flags, "--output_dir", tmp_path / "out", "--iterations", 2, "--resume")
    assert code == 0, err
    first, second = rows(tmp_path / "out")
    assert "kldloss" in first and "kldloss" not in second and "df_ganloss" in second
    path = tmp_path / "out" / "checkpoints" / "iter_0000002.pdparams"
    assert "encoder" in weights.load(path)
    code, printed, err = train(
        *flags, "--output_dir", tmp_path / "new", "--iterations", 1, "--load", path
    )
    assert code == 0 and "starts from its initial weights" not in printed, err


def test_evaluation_logs_scores_and_keeps_the_best(train, data, tmp_path):
    flags = "--iterations 1 --eval_every 1 --eval_samples 2 --inception_weights random".split()
    code, printed, err = train(*TINY, "--data_path", data, "--output_dir", tmp_path / "out", *flags)
    assert code == 0, err
    (row,) = [row for row in rows(tmp_path / "out") if "fid_not_comparable" in row]
    (path,) = (tmp_path / "out" / "checkpoints").glob("best_*")
    best = checkpoint.load_checkpoint(path)["best"]["fd_efficientnet"]
    assert best["value"] == row["fd_efficientnet"] and best["samples"] == 2
    assert np.isfinite(row["fid_not_comparable"])


def test_unreadable_held_out_pairs_stop_scores_and_sheets_unless_skipped(train, tmp_path):
    """Of five held-out pairs the photo of the first and the map of the last cannot be read."""
    data = make_toy_data.make(tmp_path / "data", "coco_stuff", 2, 8, 5, 32)
    photo, *_ = sorted((data / "val_img").iterdir())
    *_, label = sorted((data / "val_inst").iterdir())
    photo.write_bytes(b"no picture")
    label.write_bytes(b"no map")
    flags = [*TINY, "--data_path", data, "--iterations", 1]
    code, _, err = train(*flags, "--output_dir", tmp_path / "stops")
    assert code == 2
    one_line(err, photo)
    flags += "--skip_bad_images --eval_every 1 --inception_weights random".split()
    code, _, err = train(*flags, "--output_dir", tmp_path / "goes_on")
    assert code == 0, err
    best = tmp_path / "goes_on" / "checkpoints" / "best_fd_efficientnet.pdparams"
    assert checkpoint.load_checkpoint(best)["best"]["fd_efficientnet"]["samples"] == 5
    assert (tmp_path / "goes_on" / "samples" / "iter_0000001.png").exists()


def test_flags_outrank_the_yaml_file_and_the_file_the_recipe(parse, data):
    recipe = parse()
    assert (recipe.recipe, recipe.batch_size, recipe.beta2, recipe.iterations) == (
        "gaugan",
        4,
        0.9,
        100_000,
    )
    assert (recipe.g_lr, recipe.d_lr, recipe.variant, recipe.simam) == (
        1e-4,
        4e-4,
        "photopen",
        True,
    )
    file = parse(f"-c {YAML} -o optimizer.lr=2e-4 model.batchSize=2")
    assert (file.batch_size, file.beta2, file.g_lr, file.d_lr) == (2, 0.999, 2e-4, 8e-4)
    both = parse(f"-c {YAML} -o model.batchSize=2 --batch_size 3 --no-simam --beta2 0.5 --amp")
    assert (both.batch_size, both.simam, both.beta2, both.amp) == (3, False, 0.5, "fp16")
    assert (both.data_path, both.test_data_path) == (
        "test/coco_stuff",
        "",
    )  # there is no such folder
    assert parse(f"-c {YAML} -o dataset.test.content_root={data}").test_data_path == str(data)
    assert (
        parse(f"-c {YAML} -o dataset.test.content_root={data} --data_path elsewhere").test_data_path
        == ""
    )


def test_the_photopen_recipe_is_the_original_and_nvlabs_is_the_papers(parse):
    original = parse("--recipe photopen")
    assert (original.g_lr, original.d_lr, original.beta1, original.beta2) == (
        4e-4,
        1e-4,
        0.9,
        0.999,
    )
    assert (original.lambda_vgg, original.batch_size, original.flip) == (1.6, 1, False)
    from_file = parse(f"--recipe photopen -c {YAML}")
    assert (from_file.g_lr, from_file.d_lr) == (4e-4, 1e-4)
    coco, city = parse("--recipe nvlabs-coco"), parse("--recipe nvlabs-cityscapes")
    assert (coco.variant, coco.label_nc, coco.simam, coco.lambda_vgg, coco.niter) == (
        "nvlabs",
        182,
        False,
        10.0,
        100,
    )
    assert (city.crop_size, city.aspect_ratio, city.num_upsampling_layers) == (512, 2.0, "more")


def test_recipes_build_the_specified_inputs(paper, parse):
    """Channels of the semantic maps: photopen 14, COCO-Stuff 184, ADE20K 151, Cityscapes 36."""
    model, channels = paper("gaugan_simam").model, {}
    for name in paper("gaugan_simam").recipes.RECIPES:
        args = vars(parse(f"--recipe {name}"))
        arch = model.Architecture(
            **{field: args[field] for field in model.Architecture.__dataclass_fields__}
        )
        channels[name] = arch.semantic_nc
        assert args["redraw"]  # as in both originals
    assert list(channels.values()) == [14, 14, 184, 151, 36]


def test_any_flag_of_the_length_replaces_the_recipes_whole_length(parse):
    def length(text):
        args = parse(text)
        return [args.iterations, args.epochs, args.niter, args.niter_decay, args.decay_iterations]

    assert length("--recipe nvlabs-ade20k") == [0, 0, 100, 100, 0]
    assert length("--recipe nvlabs-ade20k --iterations 500") == [500, 0, 0, 0, 0]
    assert length("--niter 3 --niter_decay 2") == [0, 0, 3, 2, 0]
    assert length("--iterations 500 --decay_iterations 100") == [500, 0, 0, 0, 100]
    assert length(f"-c {YAML} -o epochs=7 lr_scheduler.start_epoch=5") == [0, 7, 5, 99999, 0]


class Evil:
    """A pickle that would create a file when loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("flag", ["--resume", "--load", "--vgg_weights"])
def test_a_pickle_with_foreign_objects_is_refused_and_runs_nothing(train, data, tmp_path, flag):
    path, target = tmp_path / "evil_checkpoint.pdparams", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"net_gen": Evil(target)}))
    code, _, err = train(
        *TINY, "--data_path", data, "--output_dir", tmp_path / "out", "--iterations", 1, flag, path
    )
    assert code == 2 and not target.exists()
    one_line(err, path, "open")


@pytest.mark.parametrize("flags, named", [
    ("", ["--data_path"]),
    ("--data_path nowhere", ["--data_path nowhere", "no such folder"]),
    ("DATA --label_nc 3", ["train_inst", "id 4 is out of range", "label_nc 3"]),
    ("DATA --batch_size 9", ["--batch_size 9", "8"]),
    ("DATA --crop_size 33", ["crop_size 33"]),
    ("DATA --norm_G spectralbatch3x3", ["norm_G spectralbatch3x3"]),
    ("DATA --amp", ["--amp fp16", "CPU"]),
    ("DATA --device gpu:99", ["--device gpu:99"]),
    ("DATA --evaluate-only", ["--evaluate-only", "test.py"]),
    ("DATA --vgg_weights nowhere.pdparams", ["nowhere.pdparams"]),
    ("DATA --test_data_path /", ["--test_data_path /", "val_img"]),
    ("DATA -o model.batchSize=4", ["-o model.batchSize=4", "--config-file"]),
    (f"DATA -c {YAML} -o model.batchsize=4", ["model.batchsize", "did you mean model.batchSize"]),
    ("DATA -c nowhere.yaml", ["--config-file nowhere.yaml"]),
    (f"DATA -c {YAML} --recipe nvlabs-coco", ["--recipe nvlabs-coco", "--config-file"]),
    ("DATA --load x --resume y", ["--load and --resume"]),
    ("DATA --resume nowhere", ["--resume nowhere"]),
    ("DATA --niter_decay 3 --decay_iterations 5", ["--decay_iterations and --niter_decay"]),
])  # fmt: skip
def test_what_cannot_be_is_one_line(train, data, tmp_path, flags, named):
    words = [
        word
        for text in flags.split()
        for word in (["--data_path", data] if text == "DATA" else [text])
    ]
    code, _, err = train(*TINY, "--output_dir", tmp_path / "out", "--iterations", 1, *words)
    assert code == 2
    one_line(err, *named)
    assert not list((tmp_path / "out").glob("checkpoints/*"))


def test_maps_of_which_nothing_is_learnt_are_told(train, tmp_path):
    """In the words of the data checker."""
    root = make_toy_data.make(tmp_path / "bw", "coco_stuff", 2, 8, 0, 32)
    for path in (root / "train_inst").iterdir():
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.uint8(ids > 0) * 255).save(path)
    flags = ["--data_path", root, "--iterations", 1, "--label_nc", 2, *TINY]
    code, out, _ = train(*flags, "--output_dir", tmp_path / "run")
    assert code == 0 and "warning: " in out
    assert "in 8 of 8 label maps only 0 and 255 occur: a black-and-white mask" in out
    assert "a black-and-white mask" in (tmp_path / "run" / "log.txt").read_text()


def test_nothing_to_train(train, data, tmp_path):
    code, _, err = train(
        *TINY, "--data_path", data, "--output_dir", tmp_path / "out", "--iterations", 0
    )
    assert code == 2
    one_line(err, "--iterations 0")


def test_the_recipes_are_listed_with_the_papers_numbers(train):
    code, printed, _ = train("--list_recipes")
    assert code == 0 and "published: fid 22.6" in printed and "nvlabs-cityscapes" in printed
