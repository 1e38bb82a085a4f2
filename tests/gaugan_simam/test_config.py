"""photopen.yaml: what is read, what one place suffices for, and what is said of keys and values
that do not fit.
"""

import pytest

from shared_metrics.errors import UserError
from tests.conftest import ROOT

PHOTOPEN = ROOT / "gaugan_simam" / "configs" / "photopen.yaml"


@pytest.fixture
def config(paper):
    return paper("gaugan_simam").config


@pytest.fixture
def load(config, tmp_path):
    """Load a configuration from the text of a file and overrides."""

    def from_text(text, *overrides):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load_config(path, overrides)

    return from_text


def test_the_shipped_file_holds_every_key_and_the_defaults(config):
    shipped = config.load_config(PHOTOPEN)
    assert shipped == config.load_config() and config.notes(shipped) == []
    read = config._read_file(PHOTOPEN)
    absent = {"epochs", "enable_visualdl", "find_unused_parameters", "min_max", "image_num"}
    assert config.PLACES.keys() - read.keys() == absent | {"validate.interval", "validate.save_img"}


def test_published_values(config):
    """The table of the original's defaults, but for lengths, intervals and Adam's beta1."""
    c = config.load_config(PHOTOPEN)
    flags = config.settings(c)
    published = {
        "label_nc": 12,
        "contain_dontcare_label": True,
        "crop_size": 256,
        "lambda_feat": 10.0,
        "lambda_vgg": 1.6,
        "ngf": 24,
        "num_upsampling_layers": "normal",
        "aspect_ratio": 1.0,
        "norm_G": "spectralspadebatch3x3",
        "use_vae": False,
        "nef": 16,
        "ndf": 128,
        "num_D": 4,
        "n_layers_D": 6,
        "no_instance": False,
        "batch_size": 1,
        "num_workers": 0,
        "vgg_size": 224,
        "beta2": 0.999,
        "data_path": "test/coco_stuff",
        "test_data_path": "test/coco_stuff",
        "output_dir": "output_dir",
        "niter": 99999,
        "niter_decay": 99999,
        "epochs": 0,
        "eval_every": 0,
    }
    assert {name: flags[name] for name in published} == published
    assert c["semantic_nc"] == 14
    assert (flags["g_lr"], flags["d_lr"], flags["beta1"]) == (1e-4, 4e-4, 0.0)
    reversed_ = config.settings(c, reversed_rates=True)
    assert (reversed_["g_lr"], reversed_["d_lr"]) == (4e-4, 1e-4)


def test_the_command_of_the_original(config):
    overrides = ["model.generator.norm_G=spectralspadesyncbatch3x3", "model.batchSize=4"]
    overrides += ["dataset.train.batch_size=4"]
    flags = config.settings(config.load_config(PHOTOPEN, overrides))
    assert flags["norm_G"] == "spectralspadesyncbatch3x3" and flags["batch_size"] == 4
    for one in overrides[1:]:
        c = config.load_config(PHOTOPEN, [one])
        assert config.settings(c)["batch_size"] == 4
        assert c["dataset.test.batch_size"] == c["predict.batchSize"] == 1


def test_one_place_suffices(load):
    c = load(
        "dataset: {test: {crop_size: 128}}\npredict:\n  label_nc: 5\n  ngf: 8\n  use_vae: yes\n"
    )
    assert (c["crop_size"], c["load_size"]) == (128, 143)
    assert (c["label_nc"], c["ngf"], c["use_vae"], c["semantic_nc"]) == (5, 8, True, 7)


def test_contradictions_name_both_places(load):
    both = r"my.yaml line 2: model.crop_size is 128, but .*"
    both += r"line 4: dataset.train.crop_size is 256. They must agree; one"
    with pytest.raises(UserError, match=both):
        load("model:\n  crop_size: 128\ndataset:\n  train: {crop_size: 256}\n")
    with pytest.raises(
        UserError, match=r"-o model.batchSize=4 is 4, but -o dataset.train.batch_size=2 is 2"
    ):
        load("", "model.batchSize=4", "dataset.train.batch_size=2")
    with pytest.raises(UserError, match=r"optimG.beta1 is 0.5, but .*optimD.beta1 is 0.9"):
        load("optimizer:\n  optimG: {beta1: 0.5}\n  optimD: {beta1: 0.9}\n")


def test_synchronised_training_does_not_contradict_prediction(load):
    c = load(
        "model: {generator: {norm_G: spectralspadesyncbatch3x3}}\npredict: {norm_G: "
        "spectralspadebatch3x3}\n"
    )
    assert c["norm_G"] == "spectralspadesyncbatch3x3"
    with pytest.raises(UserError, match="predict.norm_G is spectralspadeinstance3x3"):
        load(
            "model: {generator: {norm_G: spectralspadebatch3x3}}\npredict: {norm_G: "
            "spectralspadeinstance3x3}\n"
        )


def test_an_override_outranks_the_file_and_the_last_one_wins(load):
    c = load(
        "model: {label_nc: 5, crop_size: 128}\n",
        "predict.crop_size=64",
        "model.lambda_feat=1",
        "model.lambda_feat=2",
    )
    assert (c["crop_size"], c["label_nc"], c["lambda_feat"]) == (64, 5, 2.0)


def test_channels_follow_from_classes_unless_told_wrong(load):
    c = load("model: {label_nc: 12, generator: {semantic_nc: 14}}", "model.label_nc=182")
    assert c["semantic_nc"] == 184
    c = load("model: {contain_dontcare_label: no, discriminator: {no_instance: on}}")
    assert c["semantic_nc"] == 12
    with pytest.raises(
        UserError,
        match=r"line 1: model.generator.semantic_nc is 13, but label_nc 12, .* make 14; leave",
    ):
        load("model: {generator: {semantic_nc: 13}}")


def test_load_size_follows_the_crop_unless_told(config, load):
    assert config.settings(load(PHOTOPEN.read_text(), "model.crop_size=512"))["load_size"] == 0
    flags = config.settings(load("model: {crop_size: 128}\ndataset: {train: {load_size: 200}}"))
    assert (flags["crop_size"], flags["load_size"]) == (128, 200)


@pytest.mark.parametrize(
    "text, message",
    [
        ("model:\n  genrator: {}\n", r"my.yaml line 2: unknown key model.genrator; did you mean "
                                     r"model.generator\?"),
        ("total_iter: 5\n", r"line 1: unknown key total_iter; did you mean total_iters\?"),
        ("model:\n  batchsize: 1\n", r"line 2: unknown key model.batchsize; did you mean "
                                     r"model.batchSize\?"),
        ("model:\n\n  num_D: 4\n", r"line 3: unknown key model.num_D; did you mean "
                                   r"model.discriminator.num_D\?"),
        ("snapshot_config: {zzz: 1}\n", r"unknown key snapshot_config.zzz; known are interval"),
        ("model: 3\n", r"line 1: model must hold keys, such as name: ..."),
        ("- a\n", r"line 1: the file must hold keys"),
        ("model: {ngf: 1}\n", r"unknown key model.ngf; did you mean model.generator.ngf\?"),
        ("epochs: 1\nepochs: 2\n", r"line [12]: epochs stands twice in this section"),
        ("epochs: many\n", r"line 1: epochs: expected a whole number, not 'many'"),
        ("epochs: 1.5\n", r"expected a whole number, not 1.5"),
        ("epochs: true\n", r"expected a whole number, not True"),
        ("epochs: 0\n", r"epochs: 0 is too small; take at least 1"),
        ("epochs: .inf\n", r"expected a whole number, not inf"),
        ("optimizer: {lr: .nan}\n", r"optimizer.lr: expected a number, not nan"),
        ("optimizer: {lr: -1e-4}\n", r"optimizer.lr: -0.0001 is too small; take at least 0"),
        ("optimizer: {optimG: {beta1: 1}}\n", r"optimG.beta1: 1.0 is too large; stay below 1"),
        ("optimizer:\n  lr:\n", r"line 2: optimizer.lr: expected a number, not None"),
        ("model:\n  generator: {use_vae: "
         "maybe}\n", r"use_vae: expected true or false, not 'maybe'"),
        ("model:\n  generator: {use_vae: 1}\n", r"use_vae: expected true or false, not 1"),
        ("output_dir: 2024\n", r"output_dir: expected text, not 2024; put it into quotes"),
        ("model: {name: Pix2PixModel}\n", r"'Pix2PixModel' is not known here; take PhotoPenModel"),
        ("model: {discriminator: {output_nc: 1}}\n", r"output_nc: 1 is not known here; take 3"),
        ("optimizer: {optimG: {net_names: "
         "[net_des]}}\n", r"\['net_des'\] is not known here; take \['net_gen'\]"),
        ("optimizer: {optimG: {net_names: net_gen}}\n", r"expected a list of names, not 'net_gen'"),
        ("model:\n\tname: x\n", r"my.yaml line 2: found character"),
        ("model: [\n", r"my.yaml line 2: "),
        ("a: *b\n", r"line 1: found undefined alias"),
        ("a: 1\n---\nb: 2\n", r"line 2: but found another document"),
        ("output_dir: !!python/object/apply:os.system ['echo "
         "hi']\n", r"line 1: could not determine a constructor"),
        ("total_iters: " + "[" * 5000 + "\n", r"my.yaml"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_name_line_and_key(load, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value)[:80] and len(str(caught.value)) < 400


def test_files_that_are_none(config, tmp_path):
    with pytest.raises(UserError, match=r"--config-file .*no.yaml: no such file"):
        config.load_config(tmp_path / "no.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00weights")
    with pytest.raises(UserError, match=r"--config-file .*x.yaml: not a readable yaml file"):
        config.load_config(tmp_path / "x.yaml")
    with pytest.raises(UserError, match=r"not a readable yaml file"):
        config.load_config(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"")
    assert config.load_config(tmp_path / "x.yaml") == config.load_config()


def test_numbers_and_switches_in_every_spelling(load):
    c = load(
        'optimizer: {lr: 1e-4}\ntotal_iters: 1e5\nmodel: {lambda_feat: "7", generator: {use_vae: '
        '"on"}}\n'
    )
    assert c["g_lr"] == 1e-4 and c["iterations"] == 100_000 and isinstance(c["iterations"], int)
    assert c["lambda_feat"] == 7.0 and c["use_vae"] is True
    c = load(
        "",
        "model.generator.use_vae=off",
        "optimizer.lr=2e-4",
        "total_iters=7",
        "output_dir=runs/a=b",
        "min_max=(0,1)",
    )
    assert c["use_vae"] is False and c["g_lr"] == 2e-4 and c["iterations"] == 7
    assert c["output_dir"] == "runs/a=b" and c["min_max"] == [0.0, 1.0]


def test_merged_sections(load):
    c = load("model:\n  generator: &g {ngf: 8, nef: 4}\npredict:\n  <<: *g\n  nef: 4\n")
    assert c["ngf"] == 8 and c["nef"] == 4


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "model.generatr.ngf=8",
            r"-o model.generatr.ngf=8: unknown key model.generatr; did you mean model.generator\?",
        ),
        ("model.generator.ngff=8", r"did you mean model.generator.ngf\?"),
        (
            "model.generator=8",
            r"model.generator is a section; set one of its keys, such as model.generator.name",
        ),
        ("model.generator.ngf", r"expected key=value, such as model.batchSize=4"),
        ("=8", "expected key=value"),
        ("model.generator.ngf=", r"expected a whole number, not ''"),
        ("model.generator.ngf.x=8", r"no key below model.generator.ngf$"),
        ("optimizer.optimG.net_names.1=net_gen", r"the list has 1 places, counted from 0"),
        ("optimizer.optimG.net_names.0=net_x", r"\['net_x'\] is not known here"),
        ("optimizer.optimG.net_names.x=net_gen", r"no key below optimizer.optimG.net_names$"),
        ("min_max.0=1", r"no key below min_max$"),
        ("total_iters=__import__('os').system('touch hacked')", r"expected a whole number, not "),
        ("total_iters=" + "9" * 5000, r"expected a whole number"),
        ("total_iters=" + "(" * 5000, r"expected a whole number"),
    ],
)
def test_mistakes_in_overrides(load, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load("", text)
    assert not (tmp_path / "hacked").exists()


def test_a_place_in_a_list(load):
    c = load("", "optimizer.optimG.net_names.0=net_gen")
    assert c["optimizer.optimG.net_names"] == ["net_gen"]
    assert load("min_max: [0, 1]", "min_max.1=2")["min_max"] == [0.0, 2.0]


def test_keys_without_effect_say_why(config, load):
    text = "checkpoints_dir: elsewhere\nenable_visualdl: true\nfind_unused_parameters: no\n"
    told = config.notes(load(text + "lr_scheduler: {learning_rate: 0.1}"))
    assert (
        len(told) == 4
        and "checkpoints_dir: without effect here; checkpoints go to <output_dir>/checkpoints"
        in told
    )
    assert any(
        line.startswith("lr_scheduler.learning_rate: ") and "optimizer.lr" in line for line in told
    )


def test_epochs_and_validation(config, load):
    flags = config.settings(
        load("epochs: 3\nvalidate: {interval: 50}\nlr_scheduler: {start_epoch: 1, decay_epochs: 2}")
    )
    assert (flags["epochs"], flags["iterations"], flags["eval_every"]) == (3, 0, 50)
    assert (flags["niter"], flags["niter_decay"]) == (1, 2)
