"""train.py: the original's flags and defaults, whose flag is whose, epochs, going on, mistakes."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from shared_metrics import inference, weights
from tests.classic_gans.commands import CGAN, PIX2PIX, TINY
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS


def checkpoints(out):
    return [path.name for path in sorted((out / "checkpoints").iterdir())]


def sheets(out):
    return [path.name for path in sorted((out / "samples").iterdir())]


def logged(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# ---- models and their flags


@pytest.mark.parametrize("name", list(TINY))
def test_every_model_trains_an_epoch(run, tmp_path, name):
    flags = [*TINY[name][1:], "--epoch", 2, "--output", "out"]
    run("train", f"--model_net={name.lower()}", *flags)
    out = tmp_path / "out"
    length = 3 if "GAN" in name and name != "CycleGAN" else 7
    assert checkpoints(out) == [f"iter_{length * k:07d}.pdparams" for k in (1, 2)]
    assert sheets(out) == [f"iter_{length * k:07d}.png" for k in (1, 2)]
    state = weights.load(out / "checkpoints" / checkpoints(out)[-1])
    assert state["paper"] == name.lower() and state["batches_per_epoch"] == length
    assert {"args.json", "log.txt", "log.jsonl"} <= {path.name for path in out.iterdir()}


def defaults(run, name, *flags):
    """The flags of a model without any given, as train.py parses them."""
    import rooms
    import train

    return train.parse_args(list(flags), name, rooms.room(name))[0]


def test_defaults_are_the_specifications(run):
    common = {"dataset": "mnist", "data_dir": "./data", "train_list": "", "shuffle": True}
    common |= {"save_checkpoints": True, "run_test": True, "output_dir": "./output"}
    common |= {"iterations": 0, "log_every": 10, "learning_rate": 2e-4}
    images = {"batch_size": 1, "epoch": 200, "image_size": 286, "crop_size": 256}
    images |= {"g_base_dims": 64, "d_base_dims": 64, "net_D": "basic", "d_nlayers": 3}
    images |= {"crop_type": "random", "flip": True}
    faces = {"batch_size": 32, "image_size": 128, "crop_size": 170, "epoch": 200}
    faces |= {"gan_mode": "wgan"}
    faces |= {"g_base_dims": 64, "d_base_dims": 64, "g_lr": 2e-4, "d_lr": 2e-4, "n_samples": 16}
    faces |= {"num_discriminator_time": 5, "lambda_cls": 10, "lambda_rec": 100, "lambda_gp": 10}
    faces |= {"thres_int": 0.5, "d_fc_dim": 1024, "n_layers": 5, "dis_norm": "instance_norm"}
    thirteen = "Bald,Bangs,Black_Hair,Blond_Hair,Brown_Hair,Bushy_Eyebrows,Eyeglasses,Male,"
    thirteen += "Mouth_Slightly_Open,Mustache,No_Beard,Pale_Skin,Young"
    faces |= {"selected_attrs": thirteen, "lr_decay_epoch": 100, "split": "attgan"}
    noise = {"noise_size": 100, "num_generator_time": 1, "batch_size": 128, "epoch": 20}
    own = {
        "CGAN": noise,
        "DCGAN": noise,
        "Pix2pix": images
        | {"net_G": "unet_256", "lambda_L1": 100, "gan_mode": "vanilla", "dropout": True}
        | {"norm_type": "batch_norm"},
        "CycleGAN": images
        | {"net_G": "resnet_9block", "gan_mode": "lsgan", "dropout": False}
        | {"norm_type": "instance_norm", "lambda_A": 10, "lambda_B": 10}
        | {"lambda_identity": 0.5, "pool_size": 50, "serial_batches": False},
        "StarGAN": {"batch_size": 16, "image_size": 128, "crop_size": 178, "gan_mode": "wgan"}
        | {"selected_attrs": "Black_Hair,Blond_Hair,Brown_Hair,Male,Young", "n_critic": 5}
        | {"g_lr": 1e-4, "d_lr": 1e-4, "num_iters": 200_000, "lr_update_step": 1000}
        | {"g_repeat_num": 6, "d_repeat_num": 6, "g_base_dims": 64, "d_base_dims": 64}
        | {"lambda_cls": 1, "lambda_rec": 10, "lambda_gp": 10, "split": "yunjey"},
        "AttGAN": faces | {"slope": 0.2, "fc_slope": 0.2, "shortcut_layers": 1, "inject_layers": 1},
        "STGAN": faces
        | {"use_gru": True, "gru_n_layers": 4, "shortcut_layers": 4, "inject_layers": 4}
        | {"bn_eps": 1e-3, "bn_momentum": 0.999, "pass_state": "stu"},
        "SPADE": {"load_width": 1124, "load_height": 612, "crop_width": 1024, "crop_height": 512}
        | {"label_nc": 36, "no_instance": False, "ngf": 64, "ndf": 64, "num_D": 2, "d_nlayers": 4}
        | {"lambda_feat": 10, "lambda_vgg": 10, "lambda_kld": 0.05, "vgg19_pretrain": ""}
        | {"batch_size": 1, "niter": 100, "niter_decay": 100, "no_TTUR": False, "d_padding": 2},
    }
    import rooms

    for name, values in own.items():
        args = defaults(run, name)
        if name == "SPADE":
            args = rooms.room(name).with_preset(args)
        for flag, value in (common | values).items():
            if flag in values or hasattr(args, flag):
                assert getattr(args, flag) == value, (name, flag)


def test_the_originals_words(run):
    words = "--output o --print_freq 3 --max_iter 7 --g_base_dim 5 --dropout True --flip False"
    words += " --crop_type Centor --shuffle no --drop_last"
    args = defaults(run, "Pix2pix", *words.split())
    assert (args.output_dir, args.log_every, args.iterations, args.g_base_dims) == ("o", 3, 7, 5)
    assert args.dropout is True and args.flip is False and args.crop_type == "center"
    assert args.shuffle is False and args.drop_last is True
    args = defaults(run, "CycleGAN", "--recipe", "paddlecv", "--flip", "True")
    assert (args.g_base_dims, args.norm_type, args.flip) == (32, "batch_norm", True)


def test_help_shows_the_models_flags(run):
    text = run("train", "--model_net=pix2pix", "--help").out
    assert "--lambda_L1" in text and "--noise_size" not in text and "--pool_size" not in text
    assert "--noise_size" in run("train", "--help").out


@pytest.mark.parametrize(
    "name, flag, owners",
    [
        ("CGAN", "--lambda_L1=3", "Pix2pix"),
        ("CGAN", "--crop_size", "Pix2pix, CycleGAN"),
        ("Pix2pix", "--pool_size", "CycleGAN"),
        ("CycleGAN", "--noise_size", "CGAN, DCGAN"),
    ],
)
def test_a_flag_of_another_model_says_whose_it_is(run, name, flag, owners):
    error = run("train", f"--model_net={name}", flag, 1, code=2).err
    assert f"{flag.partition('=')[0]}: is a flag of {owners}" in error
    assert f"{name} has none of that name" in error


def test_an_unknown_model_is_told_those_that_are_here(run):
    error = run("train", "--model_net=BigGAN", code=2).err
    assert "--model_net BigGAN: unknown; take one of CGAN, DCGAN, Pix2pix" in error


def test_old_flags_are_taken_with_a_note(run, tmp_path):
    old = "--use_gpu False --profile True --profiler_path x --enable_ce --train_list t --max_iter 1"
    run("train", *CGAN, *old.split())
    log = (tmp_path / "output" / "log.txt").read_text()
    for note in (
        "--use_gpu False: --device auto",
        "--profile: no profiler",
        "--enable_ce: nothing",
    ):
        assert note in log
    assert "this model reads no list" in log


# ---- epochs


def test_what_is_saved_and_shown_when(run, tmp_path):
    run("train", *CGAN, "--epoch", 3, "--save_checkpoints", "False", "--run_test=False")
    out = tmp_path / "output"
    assert checkpoints(out) == ["iter_0000009.pdparams"] and not (out / "samples").exists()
    run("train", *CGAN, "--iterations", 5, "--save_every", 2, "--output", "b")
    assert checkpoints(tmp_path / "b") == [f"iter_000000{n}.pdparams" for n in (2, 4, 5)]
    assert sheets(tmp_path / "b") == ["iter_0000003.png"]


def test_the_last_short_batch(run, tmp_path):
    flags = [*CGAN, "--batch_size", 9, "--epoch", 1]
    run("train", *flags, "--output", "a")
    run("train", *flags, "--drop_last", "False", "--output", "b")
    assert checkpoints(tmp_path / "a") == ["iter_0000002.pdparams"]
    assert checkpoints(tmp_path / "b") == ["iter_0000003.pdparams"]


def test_the_spread_is_logged_with_each_sheet(run, tmp_path):
    run("train", *CGAN, "--epoch", 2)
    rows = [row for row in logged(tmp_path / "output") if "spread" in row]
    assert [row["iteration"] for row in rows] == [3, 6] and all(row["spread"] > 0 for row in rows)


# ---- going on


def test_init_model_of_the_same_output_goes_on(run, tmp_path):
    out = tmp_path / "output"
    run("train", *CGAN, "--epoch", 1)
    first = weights.load(out / "checkpoints" / "iter_0000003.pdparams")
    run("train", *CGAN, "--epoch", 3, "--init_model", "output/checkpoints/0")
    assert checkpoints(out) == [f"iter_000000{n}.pdparams" for n in (3, 6, 9)]
    assert "so the run goes on from it" in (out / "log.txt").read_text()
    # Another folder starts anew from the weights: no step has been taken with a rate of 0.
    run("train", *CGAN, "--init_model", "output", "--learning_rate", 0, "--max_iter", 1,
        "--output", "b")  # fmt: skip
    last = weights.load(out / "checkpoints" / "iter_0000009.pdparams")
    new = weights.load(tmp_path / "b" / "checkpoints" / "iter_0000001.pdparams")
    assert new["iteration"] == 1
    for key in ("l1.weight", "dc2.weight"):
        assert np.array_equal(new["generator"][key], last["generator"][key])
        assert not np.array_equal(first["generator"][key], last["generator"][key])


def test_init_model_that_is_not_there_or_of_another_model(run):
    run("train", *CGAN, "--epoch", 1)
    error = run("train", *CGAN, "--init_model", "output/checkpoints/7", code=2).err
    assert "no checkpoint after epoch 7 there, but iter_0000003.pdparams" in error
    error = run("train", *TINY["DCGAN"], "--init_model", "output", "--output", "b", code=2).err
    assert "holds weights of CGAN, not of DCGAN" in error
    error = run("train", *CGAN, "--init_model", "nothing.pdparams", code=2).err
    assert "nothing.pdparams" in error
    error = run("train", *CGAN, "--g_base_dims", 4, "--init_model=output", "--output=b", code=2).err
    assert "g_base_dims 2 there, 4 here" in error


def test_pools_resume(run, tmp_path):
    """Four steps are two and two, bit for bit, with pools of two that swap from the third on."""
    flags = [*TINY["CycleGAN"], "--pool_size", 2, "--save_every", 1]
    run("train", *flags, "--iterations", 5, "--output", "whole")
    run("train", *flags, "--iterations", 3, "--output", "parts")
    run("train", *flags, "--iterations", 5, "--output", "parts", "--resume")
    states = []
    for name in ("whole", "parts"):
        states.append(weights.load(tmp_path / name / "checkpoints" / "iter_0000005.pdparams"))
    whole, parts = states
    for pool in ("pool_A", "pool_B"):
        assert len(whole[pool]) == 2
        assert all(np.array_equal(*images) for images in zip(whole[pool], parts[pool], strict=True))
    for network in ("generator_A", "generator_B", "discriminator_A", "discriminator_B"):
        for key, value in whole[network].items():
            assert np.array_equal(value, parts[network][key])
    assert whole["sha256"] != "" and logged(tmp_path / "whole")[-1]["G"] > 0


# ---- data


def test_lists_are_found_in_the_data_sets_folder(run, data_dir, tmp_path):
    pairs = data_dir / "pairs"
    (pairs / "pix2pix_train_list").write_text("trainA/0_A.png\ttrainB/0_B.png\n")
    (pairs / "few").write_text("testB/7_B.png\ttestA/7_A.png\n")
    run("train", *PIX2PIX, "--train_list", "pix2pix_train_list", "--test_list", pairs / "few",
        "--epoch", 1)  # fmt: skip
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "data: 1 pairs, each two files, AtoB; 1 to show" in log
    assert checkpoints(tmp_path / "output") == ["iter_0000001.pdparams"]


def test_without_a_test_set_training_pictures_are_shown(run, data_dir, tmp_path):
    for name in ("testA", "testB"):
        shutil.rmtree(data_dir / "pairs" / name)
    for name in ("Pix2pix", "CycleGAN"):
        run("train", *TINY[name], "--max_iter", 1, "--output", name)
        assert "; 7 to show" in (tmp_path / name / "log.txt").read_text()


def test_side_by_side_pictures_and_direction(run, data_dir, tmp_path):
    folder = data_dir / "joined" / "train"
    folder.mkdir(parents=True)
    for path in (data_dir / "pairs" / "trainA").iterdir():
        halves = Image.new("RGB", (80, 40))
        halves.paste(Image.open(path), (0, 0))
        halves.save(folder / path.name)
    flags = [*PIX2PIX[:1], "--dataset=joined", *PIX2PIX[2:], "--direction", "BtoA"]
    run("train", *flags, "--max_iter", 1)
    assert "7 pairs, each halves of one file, BtoA" in (tmp_path / "output" / "log.txt").read_text()
    state = weights.load(tmp_path / "output" / "checkpoints" / "iter_0000001.pdparams")
    assert state["direction"] == "BtoA"


@pytest.mark.parametrize(
    "flags, message",
    [
        ([*CGAN, "--dataset=nothing"], "nothing: no such folder. Get a published set by"),
        ([*CGAN, "--image_size", 30], "--image_size 30: CGAN draws sides that 4 divides"),
        ([*CGAN, "--judge", "none.pdparams"], "none.pdparams"),
        ([*TINY["DCGAN"], "--form", "paper"], "--image_size 28: the paper's networks"),
        ([*TINY["DCGAN"], "--image_size", 12], "--image_size 12: D of --form digits"),
        ([*PIX2PIX, "--crop_size", 40], "--crop_size 40: larger than --image_size 36"),
        ([*PIX2PIX, "--crop_size", 30], "--crop_size 30: this --net_G needs sides that 4 divides"),
        ([*PIX2PIX, "--crop_size", 20], "--crop_size 20: --net_D basic with 3 layers of stride 2"),
        ([*PIX2PIX, "--net_G", "unet_128"], "sides that 128 divides"),
        ([*PIX2PIX, "--dataset=mnist"], "no pairs in it. Expected train.txt"),
        ([*PIX2PIX, "--test_list", "none"], "none: cannot be read"),
        ([*TINY["CycleGAN"], "--dataset=mnist"], "no pictures of domain A in it"),
    ],
)
def test_mistakes(run, flags, message):
    assert message in run("train", *flags, code=2).err


# ---- rooms


def test_taking_a_paper_out_is_deleting_its_room(data_dir, tmp_path):
    copy = tmp_path / "my_gans"
    shutil.copytree(ROOT / "classic_gans", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("dcgan", "pix2pix"):
        shutil.rmtree(copy / room)
    flags = ["--data_dir", data_dir, "--device", "cpu", "--num_workers", 0, "--max_iter", 1]
    run_cli(copy, "train.py", *TINY["CycleGAN"], *flags, "--output", tmp_path / "out")
    run_cli(copy, "infer.py", "--init_model", tmp_path / "out", "--output", tmp_path / "drawn")
    failed = run_cli(copy, "train.py", *TINY["Pix2pix"], *flags, code=2)
    assert "--model_net Pix2pix: unknown; take one of CGAN, CycleGAN" in failed.stderr


@pytest.mark.parametrize("name", ["Pix2pix", "CycleGAN"])
def test_unreadable_pictures_stop_or_are_left_out(run, data_dir, tmp_path, name):
    """Cut files, whose heads are whole, one to train on and one to show."""
    flags = [*TINY[name], "--epoch", 1, "--skip_bad_images"]

    def height(out):
        run("train", *flags, "--output", out)
        return Image.open(next((tmp_path / out / "samples").iterdir())).size[1]

    whole = height("whole")
    for place in ("trainA/3_A.png", "testA/8_A.png"):
        path = data_dir / "pairs" / place
        path.write_bytes(path.read_bytes()[:-40])
    assert height("rest") == whole - 34
    error = run("train", *flags[:-1], "--output", "none", code=2).err
    assert "3_A.png: not a readable image" in error or "8_A.png: not a readable" in error


@pytest.mark.parametrize("key", [key for key in PAPERS if key.startswith("classic_gans")])
def test_an_evaluation_by_a_program_draws_as_the_layers(paper, tmp_path, monkeypatch, key):
    gans = paper("classic_gans")
    tiny = PAPERS[key]
    name = next(name for name in gans.rooms.ROOMS if name.lower() == key.partition("-")[2])
    words = tiny.flags(tiny.data(tmp_path), tmp_path / "out", 1, eval_samples=6)
    room = gans.rooms.room(name)
    args = gans.train.parse_args(words[1:], name, room)[0]
    args.batch_size = 4
    trainer = room.Trainer(args)
    if hasattr(trainer, "editor"):
        fakes = partial(trainer.editor.fakes, trainer.held_out, 6, 4, seed=0)
    else:
        fakes = partial(trainer.fakes, 6)
    network = next(iter(trainer.networks.values()))
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    layers = np.concatenate(list(fakes()))
    made = []
    own = inference.program
    monkeypatch.setattr(inference, "PIXELS", 1)
    monkeypatch.setattr(inference, "program", lambda *how: made.append(own(*how)) or made[-1])
    programs = np.concatenate(list(fakes()))
    # Pix2Pix draws with dropout and the batch's statistics, which no program has.
    assert len(made) == (name != "Pix2pix") and layers.std() > 0
    assert np.abs(programs - layers.astype(int)).max() <= 1
    assert network.training
    after = network.state_dict()
    assert all(np.array_equal(after[key].numpy(), before[key]) for key in before)
