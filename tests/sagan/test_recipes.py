"""The recipes against the published tables, and the rule that explicit flags override them."""

import pytest

from shared_metrics.errors import UserError

# In the order of FLAGS; iterations count updates of G.
# fmt: off
TABLE = {
    "sagan128":
        (64, 4, 1, 1e-4, 4e-4, 0.0, 0.900, 1e-8, 1_000_000, 128, "real", 0, False),
    "cifar10":
        (64, 1, 5, 2e-4, 2e-4, 0.5, 0.999, 1e-8, 100_000, 32, "uniform", 0, False),
    "cifar10-inplace-relu":
        (64, 1, 5, 2e-4, 2e-4, 0.5, 0.999, 1e-8, 100_000, 32, "uniform", 0, True),
    "imagenet128-ndisc1":
        (64, 4, 1, 1e-4, 4e-4, 0.0, 0.999, 1e-8, 1_000_000, 128, "uniform", 0, False),
    "imagenet128-biggan":
        (32, 8, 1, 1e-4, 4e-4, 0.0, 0.999, 1e-8, 1_000_000, 128, "uniform", 0.999, False),
    "studiogan-cifar10":
        (64, 1, 5, 2e-4, 2e-4, 0.5, 0.999, 1e-6, 100_000, 32, "uniform", 0, True),
    "studiogan-imagenet128":
        (64, 4, 1, 1e-4, 4e-4, 0.0, 0.999, 1e-6, 1_000_000, 128, "uniform", 0, True),
}
FLAGS = (
    "batch_size", "cards", "d_steps_per_iter", "g_lr", "d_lr", "beta1", "beta2", "adam_eps",
    "iterations", "imsize", "fake_labels", "ema_decay", "skip_relu",
)
# fmt: on


@pytest.fixture
def sagan(paper):
    return paper("sagan")


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_sets_every_published_value(sagan, name):
    args = sagan.train.parse_args(["--recipe", name])
    expected = dict(zip(FLAGS, TABLE[name], strict=True))
    assert {flag: getattr(args, flag) for flag in FLAGS} == expected
    assert args.adv_loss == "hinge"
    assert (args.z_dim, args.g_conv_dim, args.d_conv_dim) == (128, 64, 64)


def test_there_are_no_other_recipes(sagan):
    assert set(sagan.recipes.RECIPES) == set(TABLE) == set(sagan.recipes.PUBLISHED)


def test_forms_and_what_only_one_recipe_has(sagan):
    forms = {name: r["form"] for name, r in sagan.recipes.RECIPES.items()}
    assert forms == {
        "sagan128": "sagan",
        "cifar10": "mmgen",
        "cifar10-inplace-relu": "mmgen",
        "imagenet128-ndisc1": "mmgen",
        "imagenet128-biggan": "mmgen-biggan",
        "studiogan-cifar10": "studiogan",
        "studiogan-imagenet128": "studiogan",
    }
    for name, r in sagan.recipes.RECIPES.items():
        assert r["sync_bn"] == (name == "imagenet128-ndisc1")
        assert r["ema_start"] == (2000 if name == "imagenet128-biggan" else 0)
        assert r["g_steps_per_iter"] == 1 and (r["imsize"] == 128 or r["flip"])


def test_crops_and_flips(sagan):
    recipes = {name: r for name, r in sagan.recipes.RECIPES.items() if r["imsize"] == 128}
    assert {name: (r["crop"], r["flip"]) for name, r in recipes.items()} == {
        "sagan128": ("center", False),
        "imagenet128-ndisc1": ("random", True),
        "imagenet128-biggan": ("center", False),
        "studiogan-imagenet128": ("random", True),
    }
    assert sagan.train.parse_args(["--recipe", "imagenet128-biggan"]).ema_start == 2000


def test_flags_override_the_recipe_and_the_original_names_work(sagan):
    words = "--recipe cifar10 --total_step 7 --log_step 3 --model_save_step 5 --sample_step 4 "
    words += "--manual_seed 11 --save_path out --d_lr 0.5 --no-flip --g_attention 8,16"
    args = sagan.train.parse_args(words.split())
    assert (args.iterations, args.log_every, args.save_every, args.sample_every) == (7, 3, 5, 4)
    assert (args.seed, args.output_dir, args.flip) == (11, "out", False)
    assert (args.d_lr, args.g_lr, args.g_attention) == (0.5, 2e-4, [8, 16])


def test_list_recipes_prints_each_with_its_scores(sagan, capsys):
    sagan.train.main(["--list_recipes"])
    printed = capsys.readouterr().out
    for name in TABLE:
        assert f"\n{name}: " in "\n" + printed
    scores = "52.52 18.65 51.6682 18.1482 9.3174 9.4252 69.535 12.8295 14.009 34.726"
    for score in scores.split():
        assert score in printed


@pytest.mark.parametrize(
    "flags, named",
    [
        ("--state_dict_or_model model", "--state_dict_or_model"),
        ("--pretrained_model x --resume auto", "--pretrained_model and --resume"),
    ],
)
def test_contradictions_name_the_flag(sagan, flags, named):
    with pytest.raises(UserError, match=named):
        sagan.train.parse_args(flags.split())


@pytest.mark.parametrize(
    "flags", ["--batch_size 0", "--recipe cifar", "--g_attention 8-", "--d_lr x", "--betta1 1"]
)
def test_impossible_values_exit_with_2(sagan, flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        sagan.train.parse_args(flags.split())
    assert stopped.value.code == 2 and flags.split()[0] in capsys.readouterr().err
