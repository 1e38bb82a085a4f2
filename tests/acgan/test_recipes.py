"""The recipes against the published tables, and the rule that explicit flags override them."""

import pytest

from shared_metrics.errors import UserError

# In the order of FLAGS. The reproductions' images, batch, length and Adam are the same;
# `iterations` 0: by epochs.
TABLE = {
    "imagenet128": ("callifrey", 128, True, "normal", "cross_entropy", 500, 0),
    "imagenet64": ("callifrey", 64, True, "normal", "cross_entropy", 500, 0),
    "cifar10": ("callifrey", 32, True, "normal", "cross_entropy", 500, 0),
    "paper-imagenet128": ("callifrey", 128, True, "normal", "cross_entropy", 0, 50_000),
    "callifrey": ("callifrey", 128, False, "paddle", "linear", 500, 0),
    "clvrai-imagenet": ("clvrai", 128, False, "clvrai", "linear", 500, 0),
    "clvrai-cifar10": ("clvrai", 32, False, "clvrai", "linear", 500, 0),
}
FLAGS = ("form", "imsize", "fc_relu", "init", "class_loss", "niter", "iterations")


@pytest.fixture
def acgan(paper):
    return paper("acgan")


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_sets_every_published_value(acgan, name):
    args = acgan.train.parse_args(["--recipe", name])
    expected = dict(zip(FLAGS, TABLE[name], strict=True))
    assert {flag: getattr(args, flag) for flag in FLAGS} == expected
    assert (args.lr, args.g_lr, args.d_lr, args.beta1, args.beta2) == (2e-4, None, None, 0.5, 0.999)
    assert (args.batch_size, args.nz, args.ngf, args.ndf) == (100, 110, 64, 64)
    assert args.activation_noise == 0
    assert (args.flip, args.ema_decay, args.ema_start) == (False, 0, 0)


def test_there_are_no_other_recipes_and_every_key_is_a_flag(acgan):
    assert set(acgan.recipes.RECIPES) == set(TABLE) == set(acgan.recipes.ABOUT)
    flags = {option.lstrip("-") for option in acgan.train.parser()._option_string_actions}
    keys = set(acgan.recipes.RECIPES["imagenet128"])
    assert keys <= flags and all(set(recipe) == keys for recipe in acgan.recipes.RECIPES.values())


def test_the_papers_numbers(acgan):
    imagenet = acgan.recipes.PUBLISHED["paper-imagenet128"]
    cifar10 = acgan.recipes.PUBLISHED["cifar10"]
    assert [value for _, value, _ in imagenet] == [0.101, 0.070, 0.050, 0.847]
    assert [(score, value) for score, value, _ in cifar10] == [("is", 8.25)]
    assert set(acgan.recipes.PUBLISHED) == {"imagenet128", "paper-imagenet128", "cifar10"}


def test_list_recipes_prints_each_with_its_scores(acgan, capsys):
    assert acgan.train.main(["--list_recipes"]) is None
    printed = capsys.readouterr().out
    for name in TABLE:
        assert f"\n{name}: {acgan.recipes.ABOUT[name]}\n" in "\n" + printed
    for text in ("50,000 iterations", "500 epochs", "linear", "without ReLU"):
        assert text in printed
    for score in ("0.101", "0.07 ", "0.05 ", "0.847", "8.25"):
        assert score in printed


def test_flags_override_the_recipe(acgan):
    words = "--recipe clvrai-cifar10 --init normal --fc_relu --flip --lr 0.5 --nz 100"
    args = acgan.train.parse_args(words.split())
    assert (args.init, args.fc_relu, args.flip) == ("normal", True, True)
    assert (args.lr, args.nz) == (0.5, 100)
    assert (args.form, args.class_loss, args.imsize) == ("clvrai", "linear", 32)
    assert args.class_on == "both"
    assert acgan.train.parse_args(["--class_on", "real"]).class_on == "real"
    assert acgan.train.parse_args(["--aux_loss", "linear", "--no-fc_relu"]).class_loss == "linear"


def test_the_length_asked_for_goes_before_the_recipes(acgan):
    def length(*flags):
        args = acgan.train.parse_args(list(flags))
        return args.iterations or f"{args.niter} epochs"

    paper = ("--recipe", "paper-imagenet128")
    assert length(*paper) == 50_000 and length(*paper, "--niter", "3") == "3 epochs"
    assert length(*paper, "--iterations", "7", "--niter", "3") == 7 == length("--iterations", "7")
    with pytest.raises(UserError, match="--niter 0.*--iterations"):
        length("--niter", "0")
