"""SPADE's losses by hand, its training step against the authors', written out again, its presets
and data, VGG19's files.
"""

import copy

import numpy as np
import paddle
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics import process, weights
from shared_metrics.errors import UserError
from tests.classic_gans import face_rooms as rooms
from tests.classic_gans.networks import arrays, conv, randomize, tensor
from tests.shared_metrics.fluid import variable

RNG = np.random.default_rng


@pytest.fixture
def trainer(paper):
    paper("classic_gans")
    import spade.trainer

    return spade.trainer


def outputs(seed, scales=2):
    """D's outputs of some layers and, last, logits that lie on both sides of the hinge."""
    rng = RNG(seed)
    shapes = [(3, 2, 6, 6), (3, 4, 4, 4), (3, 1, 5, 5)]
    return [[2 * rng.standard_normal(shape) for shape in shapes] for _ in range(scales)]


def tensors(outputs, stop_gradient=True):
    result = [[tensor(h) for h in scale] for scale in outputs]
    for scale in result:
        for h in scale:
            h.stop_gradient = stop_gradient
    return result


def test_hinge_losses_are_averaged_over_the_scales(trainer):
    values = outputs(0)
    for real, sign in ((True, 1), (False, -1)):
        expected = np.mean([np.maximum(0, 1 - sign * scale[-1]).mean() for scale in values])
        assert trainer.d_hinge_loss(tensors(values), real).item() == pytest.approx(
            expected, rel=1e-5
        )
    expected = -np.mean([scale[-1].mean() for scale in values])
    assert trainer.g_hinge_loss(tensors(values)).item() == pytest.approx(expected, rel=1e-5)


def test_feature_loss_sums_the_layers_without_the_logits(trainer):
    fake = outputs(0)
    real = outputs(1)
    expected = 0.0
    for s in range(2):
        for k in range(2):  # the third output is the logits
            expected += np.abs(fake[s][k] - real[s][k]).mean()
    fakes = tensors(fake, False)
    reals = tensors(real, False)
    loss = trainer.feature_loss(fakes, reals)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    assert fakes[1][0].grad is not None and reals[1][0].grad is None


def test_vgg_loss_weighs_by_depth(trainer):
    fake = outputs(0, scales=2)[0] + outputs(2)[0][:2]
    real = outputs(1)[0] + outputs(3)[0][:2]
    weights = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    expected = sum(weights[k] * np.abs(fake[k] - real[k]).mean() for k in range(5))
    (fakes,), (reals,) = tensors([fake], False), tensors([real], False)
    loss = trainer.vgg_loss(fakes, reals)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert fakes[0].grad is not None and reals[0].grad is None


def test_kl_loss_is_summed(trainer):
    mu, logvar = RNG(0).standard_normal((2, 3, 4))
    expected = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum()
    assert trainer.kl_loss(tensor(mu), tensor(logvar)).item() == pytest.approx(expected, rel=1e-5)


def test_split_gives_fakes_first(trainer):
    values = outputs(0)
    fake, real = trainer.split(tensors(values), 1)
    for s in range(2):
        for k in range(3):
            np.testing.assert_array_equal(fake[s][k].numpy(), values[s][k][:1].astype("float32"))
            np.testing.assert_array_equal(real[s][k].numpy(), values[s][k][1:].astype("float32"))


# ---- training steps ----

TINY = "--crop_width 32 --crop_height 32 --load_width 36 --load_height 36 --label_nc 3 --ngf 1"
TINY += " --ndf 2 --d_nlayers 2 --z_dim 4 --nef 1 --batch_size 2 --n_samples 2 --log_every 1"


class Pairs:
    """Label maps, instances and photos without files."""

    def __init__(self, count, seed=0):
        rng = RNG(seed)
        self.labels = rng.integers(0, 3, (count, 32, 32))
        self.instances = rng.integers(0, 2, (count, 32, 32))
        self.photos = rng.uniform(-1, 1, (count, 3, 32, 32)).astype("float32")

    def __len__(self):
        return len(self.labels)

    def load(self, index, rng=None):
        return self.labels[index], self.instances[index], self.photos[index]


def make(trainer, tmp_path, *words):
    args = rooms.parse(trainer, tmp_path / "run", *TINY.split(), *words)
    ours = trainer.Trainer(args, (Pairs(8), Pairs(3, seed=1)))
    for n, network in enumerate(n for n in ours.networks.values() if n is not None):
        randomize(network, seed=n, scale=0.2)  # the first weights, 0.02 wide, give gradients of 0
    return ours


def batches(count, n=2):
    for i in range(count):
        pairs = Pairs(n, seed=20 + i)
        yield pairs.labels, pairs.instances, pairs.photos


class Twin:
    """The authors' iteration: G's step, then D's on the same batch and fakes drawn anew."""

    def __init__(self, ours, semantics, g_lr, d_lr):
        self.G, self.D, self.E = (copy.deepcopy(n) for n in (ours.G, ours.D, ours.E))
        self.semantics = lambda *maps: semantics(*map(paddle.to_tensor, maps), ours.arch)
        trained = paddle.nn.LayerList([n for n in (self.G, self.E) if n is not None])
        self.adam_G = rooms.Adam(trained, g_lr, 0.0, 0.9)
        self.adam_D = rooms.Adam(self.D, d_lr, 0.0, 0.9)

    def fake(self, seg, real, noise):
        if self.E is None:
            return self.G(seg), paddle.zeros([1])
        mu, logvar = self.E(real)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return self.G(seg, mu + (logvar / 2).exp() * tensor(noise)), kl

    def judge(self, seg, fake, real):
        """[(D's outputs on fakes, on real photos) of each layer] of each scale."""
        x = paddle.concat([paddle.concat([seg, fake], 1), paddle.concat([seg, real], 1)], 0)
        return [[(h[: len(fake)], h[len(fake) :]) for h in scale] for scale in self.D(x)]

    def step(self, labels, instances, photos, rng):
        seg = self.semantics(labels, instances)
        real = tensor(photos)
        fake, kl = self.fake(seg, real, rng.standard_normal((2, 4), dtype=np.float32))
        outputs = self.judge(seg, fake, real)
        gan = -sum(scale[-1][0].mean() for scale in outputs) / 2
        feat = 0.0
        for scale in outputs:
            for f, r in scale[:-1]:
                feat = feat + (f - r.detach()).abs().mean() / 2
        self.adam_G.step(gan + 5 * feat + 0.05 * kl)
        fake, _ = self.fake(seg, real, rng.standard_normal((2, 4), dtype=np.float32))
        d_fake = d_real = 0.0
        for scale in self.judge(seg, fake.detach(), real):
            d_fake = d_fake + paddle.clip(1 + scale[-1][0], min=0).mean() / 2
            d_real = d_real + paddle.clip(1 - scale[-1][1], min=0).mean() / 2
        self.adam_D.step(d_fake + d_real)
        losses = {"g_loss_gan": gan, "g_loss_feat": 5 * feat}
        return losses | {"d_loss_fake": d_fake, "d_loss_real": d_real}


@pytest.mark.parametrize("vae", [[], ["--use_vae"]], ids=["plain", "vae"])
def test_two_iterations_are_the_authors(trainer, tmp_path, vae):
    words = ["--lambda_feat", "5", "--learning_rate", "1e-3"]
    ours = make(trainer, tmp_path, *words, *vae)
    twin = Twin(ours, trainer.semantics, 5e-4, 2e-3)
    stream = batches(2)
    for iteration, batch in enumerate(batches(2)):
        logs = ours.train_step(iteration, stream)
        losses = twin.step(*batch, process.rng(0, "step", iteration, 0))
        rooms.assert_losses(logs, **losses)
        rooms.assert_same(ours.G, twin.G)
        rooms.assert_same(ours.D, twin.D)
        if vae:
            rooms.assert_same(ours.E, twin.E)
            assert "g_loss_kld" in logs


def test_ds_fakes_are_the_updated_gs_and_all_norms_move_twice(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--learning_rate", "0.1")
    drawn = []
    judged = []
    weights = []

    def note(layer, inputs, outputs):
        drawn.append(outputs.numpy())
        weights.append(layer.fc.weight.numpy().copy())
        assert layer.training

    ours.G.register_forward_post_hook(note)
    ours.D.register_forward_pre_hook(lambda layer, inputs: judged.append(inputs[0].numpy()))
    convolution = ours.D.discriminator_0.model1[0][0]
    pairs = [convolution.weight_u.numpy().copy()]
    convolution.register_forward_post_hook(
        lambda layer, *_: pairs.append(layer.weight_u.numpy().copy())
    )
    ours.train_step(0, batches(1))
    assert len(drawn) == len(judged) == 2 and (weights[0] != weights[1]).any()
    assert (drawn[0] != drawn[1]).any()
    ((_, _, photos),) = batches(1)
    for fakes, images in zip(drawn, judged, strict=True):
        np.testing.assert_array_equal(images[:2, -3:], fakes)  # fakes first
        np.testing.assert_array_equal(images[2:, -3:], photos)
    assert len(pairs) == 3 and (pairs[0] != pairs[1]).any() and (pairs[1] != pairs[2]).any()


@pytest.mark.parametrize(
    "words",
    [
        "--num_D 3 --d_nlayers 2 --d_padding 1 --no_instance --contain_dontcare_label",
        "--num_D 1 --d_nlayers 1 --lambda_feat 0 --no_TTUR --niter 0 --niter_decay 0 --epoch 1",
    ],
)
def test_other_values_of_the_flags_take_a_step(trainer, tmp_path, words):
    logs = make(trainer, tmp_path, *words.split()).train_step(0, batches(1))
    assert all(np.isfinite(float(loss)) for loss in logs.values())


def test_images_that_leave_ds_last_scale_no_patch_are_refused(trainer, tmp_path):
    with pytest.raises(UserError, match="--crop_height 32: too small for D's --num_D 2 scales"):
        make(trainer, tmp_path, "--d_nlayers", "4", "--d_padding", "1")


def test_the_perceptual_loss_moves_g_alone(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--lambda_vgg", "3")
    seen = []

    def vgg(x):
        seen.append(x)
        return [x * k for k in range(1, 6)]

    ours.vgg = vgg
    logs = ours.train_step(0, batches(1))
    fake, real = seen
    weight = 3 * (1 / 32 + 2 / 16 + 3 / 8 + 4 / 4 + 5)
    expected = weight * np.abs(fake.numpy() - real.numpy()).mean()
    assert logs["g_loss_vgg"].item() == pytest.approx(expected, rel=1e-4)
    assert not fake.stop_gradient and real.stop_gradient


def test_two_rates_fall_linearly_by_epochs_and_never_to_0(trainer, tmp_path):
    """Eight pairs in batches of two are four iterations an epoch."""
    ours = make(trainer, tmp_path, "--niter", "3", "--niter_decay", "2", "--learning_rate", "1e-3")
    assert ours.total == 20
    for iteration, share in ((0, 1), (15, 1), (16, 0.5), (19, 0.5), (40, 0.5)):
        ours.set_rates(iteration)
        rates = [u.optimizer.get_lr() for u in (ours.update_G, ours.update_D)]
        assert rates == pytest.approx([share * 5e-4, share * 2e-3])
    assert (ours.update_G.optimizer._beta1, ours.update_G.optimizer._beta2) == (0.0, 0.9)
    ours = make(trainer, tmp_path, "--no_TTUR", "--epoch", "7")
    ours.set_rates(0)
    rates = [u.optimizer.get_lr() for u in (ours.update_G, ours.update_D)]
    assert rates == pytest.approx([2e-4, 2e-4]) and ours.total == 28
    assert (ours.update_D.optimizer._beta1, ours.update_D.optimizer._beta2) == (0.5, 0.999)


@pytest.mark.parametrize(
    "words, epochs",
    [
        ("--epoch 7", (4, 3)),
        ("--epoch 300", (150, 150)),
        ("--epoch 300 --niter 250", (250, 50)),
        ("--epoch 300 --niter_decay 0", (300, 0)),
        ("--epoch 50 --preset coco", (50, 0)),
        ("--epoch 50 --preset coco --niter 30", (30, 20)),
        ("--niter 5", (5, 100)),
    ],
)
def test_epochs_are_divided_as_the_presets(trainer, tmp_path, words, epochs):
    args = trainer.with_preset(rooms.parse(trainer, tmp_path, *words.split()))
    assert (args.niter, args.niter_decay) == epochs


# ---- presets and data ----


def test_presets_fill_what_was_not_given(trainer, tmp_path):
    def flags_of(*words):
        return trainer.with_preset(rooms.parse(trainer, tmp_path, *words))

    args = flags_of("--preset", "ade20k")
    assert (args.label_nc, args.contain_dontcare_label, args.no_instance) == (150, True, True)
    assert (args.zero_is_unknown, args.flip, args.batch_size) == (True, True, 32)
    assert (args.load_width, args.crop_height, args.niter, args.niter_decay) == (286, 256, 100, 100)
    args = flags_of("--preset", "cityscapes", "--batch_size", "2", "--no-flip")
    assert (args.label_nc, args.crop_width, args.crop_height) == (35, 512, 256)
    assert (args.batch_size, args.flip, args.num_upsampling_layers) == (2, False, "more")
    args = flags_of("--preset", "coco", "--no_instance", "False", "--label_nc", "7")
    assert (args.label_nc, args.no_instance, args.niter_decay) == (7, False, 0)
    args = flags_of()  # PaddleCV's own sizes
    assert (args.label_nc, args.load_width, args.load_height) == (36, 1124, 612)
    assert (args.crop_width, args.crop_height, args.batch_size, args.flip) == (1024, 512, 1, False)


@pytest.fixture
def toy_words(tmp_path):
    toy.make(tmp_path / "toy", "coco_stuff", classes=2, count=4, val_count=2, size=40)
    words = ["--data_dir", tmp_path, "--dataset", "toy", *TINY.split(), "--label_nc", "5"]
    return [*words, "--contain_dontcare_label"]


def test_folders_of_pairs(trainer, tmp_path, toy_words):
    ours = trainer.Trainer(rooms.parse(trainer, tmp_path / "run", *toy_words))
    assert (len(ours.data), len(ours.held_out), ours.arch.semantic_nc) == (4, 2, 7)
    assert ours.describe().startswith("4 pairs, 2 for the sheets; no --vgg19_pretrain")
    words = [*toy_words, "--no_instance"]
    ours = trainer.Trainer(rooms.parse(trainer, tmp_path / "run", *words))
    assert ours.data.items[0][2] is None and ours.arch.semantic_nc == 6
    root = tmp_path / "toy"
    words = ["--image_dir", root / "train_img", "--label_dir", root / "train_inst"]
    args = rooms.parse(trainer, tmp_path / "run", *TINY.split(), *words, "--no_instance")
    assert len(trainer.find_items(args, "train")) == len(trainer.find_items(args, "test")) == 4
    args.no_instance = False
    with pytest.raises(UserError, match="000000.png: has no instance map; give them, or --no_ins"):
        trainer.find_items(args, "train")


def test_lists_of_pairs(trainer, tmp_path, toy_words):
    line = "{0}_inst/000000.png\t{0}_img/000000.png\t{0}_instance/000000.png\n"
    (tmp_path / "toy" / "train.txt").write_text(line.format("train"))
    (tmp_path / "toy" / "other.txt").write_text(line.format("val") * 3)
    args = rooms.parse(trainer, tmp_path / "run", *toy_words)
    assert (
        len(trainer.find_items(args, "train")) == 1 and len(trainer.find_items(args, "test")) == 2
    )
    args = rooms.parse(trainer, tmp_path / "run", *toy_words, "--test_list", "other.txt")
    assert len(trainer.find_items(args, "test")) == 3


def test_pairs_that_cannot_be_read_are_left_out_everywhere_where_asked(
    trainer, tmp_path, toy_words
):
    """In training, on the sheets and in the scores."""
    for name in ("train_img/000000", "train_inst/000001", "val_img/000000"):
        (tmp_path / "toy" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="000000.png: not a readable image"):
        trainer.Trainer(rooms.parse(trainer, tmp_path / "run", *toy_words))
    words = [*toy_words, "--skip_bad_images", "--batch_size", "2", "--iterations", "1"]
    args = rooms.parse(trainer, tmp_path / "run", *words, "--sample_every", "1")
    ours = trainer.Trainer(args)
    assert ours.train() == 0 and list((tmp_path / "run" / "samples").iterdir())
    assert [len(images) for images in ours.fakes(2)] == [1, 1]
    assert sum(len(images) for images in ours.data.pictures(skip_bad=True)) == 2


def test_label_maps_are_looked_at_before_training(trainer, tmp_path, toy_words):
    args = rooms.parse(trainer, tmp_path / "run", *toy_words, "--label_nc", "2")
    with pytest.raises(UserError, match="is out of range: label_nc 2 allows 0 to 1"):
        trainer.Trainer(args)
    args = rooms.parse(trainer, tmp_path / "run", *toy_words, "--dataset", "nothing")
    with pytest.raises(UserError, match="--dataset .*nothing: no such folder"):
        trainer.Trainer(args)


# ---- runs ----


def test_a_resumed_run_is_the_whole_one_bit_for_bit(trainer, tmp_path, toy_words):
    def train(name, iterations, *more):
        more = ["--iterations", iterations, "--use_vae", "--flip", *more]
        ours = trainer.Trainer(rooms.parse(trainer, tmp_path / name, *toy_words, *more))
        assert ours.train() == 0
        return rooms.state_of(ours)

    whole = train("whole", 3)
    train("parts", 1)
    parts = train("parts", 3, "--resume")
    for part in ("generator", "discriminator", "encoder"):
        for name, value in whole[part].items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=name)
    with Image.open(tmp_path / "whole" / "samples" / "iter_0000003.png") as sheet:
        assert sheet.width == 2 + 3 * 34 and sheet.height > 2 * 34  # two rows, below their titles


def test_weights_of_another_network_are_refused(trainer, tmp_path):
    state = rooms.state_of(make(trainer, tmp_path, "--use_vae"))
    larger = make(trainer, tmp_path, "--use_vae", "--crop_width", "64", "--load_width", "64")
    with pytest.raises(UserError, match="fc.weight"):
        larger.start_from(state, "f")  # the latent's layer is not convolutional
    other = make(trainer, tmp_path, "--use_vae", "--no_instance")
    with pytest.raises(UserError, match="no_instance False there, True here"):
        other.start_from(state, "f")
    del state["discriminator"], state["encoder"]
    notes = make(trainer, tmp_path, "--use_vae", "--d_padding", "1").start_from(state, "f")
    assert notes == [
        "f: holds no encoder; it starts from its initial weights",
        "f: holds no discriminator; it starts from its initial weights",
    ]


# ---- VGG19 ----


def vgg_state(vgg, name):
    """The state of our VGG19 under the keys of a file: name(block, n) -> key without its leaf."""
    state = {}
    for key, value in arrays(vgg).items():
        layer, leaf = key.split(".")
        state[name(*layer.removeprefix("conv").split("_"), leaf)] = value
    return state


TORCH_PLACES = {"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14, "3_4": 16}
TORCH_PLACES |= {"4_1": 19, "4_2": 21, "4_3": 23, "4_4": 25, "5_1": 28}


@pytest.mark.parametrize(
    "bias, name",
    [
        (True, lambda b, n, leaf: f"features.{TORCH_PLACES[f'{b}_{n}']}.{leaf}"),
        (False, lambda b, n, leaf: f"conv_block_{b}.conv{n}.weight"),
        (False, lambda b, n, leaf: f"_conv_block_{b}._conv_{n}.weight"),
        (False, lambda b, n, leaf: f"vgg19_conv{b}_{n}_weights"),
    ],
    ids=["torch", "paddleclas", "paddlegan", "paddlecv"],
)
def test_vgg19_out_of_any_known_file(trainer, tmp_path, monkeypatch, bias, name):
    import spade.vgg

    monkeypatch.setattr(spade.vgg, "WIDTHS", (2, 3, 4, 5, 6))
    vgg = randomize(spade.vgg.VGG19(bias))
    state = vgg_state(vgg, name) | {"classifier.0.weight": np.zeros((4, 4), "f4")}
    state[name("5", "2", "weight") if not bias else "features.30.weight"] = np.zeros(3, "f4")
    weights.save(state, tmp_path / "vgg.pdparams")
    loaded = spade.vgg.load_vgg(tmp_path / "vgg.pdparams")
    x = RNG(0).uniform(-1, 1, (1, 3, 32, 32))
    expected = x
    for block, number in enumerate((2, 2, 4, 4, 1), 1):
        if block > 1:
            N, C, H, W = expected.shape
            expected = expected.reshape(N, C, H // 2, 2, W // 2, 2).max((3, 5))
        for n in range(1, number + 1):
            layer = arrays(getattr(vgg, f"conv{block}_{n}"))
            expected = np.maximum(conv(expected, layer["weight"], layer.get("bias"), padding=1), 0)
            if n == 1:
                features = loaded(tensor(x))[block - 1]
                np.testing.assert_allclose(features.numpy(), expected, 1e-4, 1e-5)
    assert len(loaded(tensor(x))) == 5
    del state[name("3", "2", "weight") if not bias else "features.12.weight"]
    weights.save(state, tmp_path / "cut.pdparams")
    with pytest.raises(UserError, match="--vgg19_pretrain .*cut.pdparams.*conv3_2.weight"):
        spade.vgg.load_vgg(tmp_path / "cut.pdparams")
    weights.save({"x": np.zeros(3)}, tmp_path / "none.pdparams")
    with pytest.raises(UserError, match="holds no convolutions of a known VGG19"):
        spade.vgg.load_vgg(tmp_path / "none.pdparams")


def test_vgg19_out_of_paddlecvs_folder(trainer, tmp_path, monkeypatch):
    """vgg19_spade.tar.gz: a raw file for each variable, those of the linear layers among them."""
    import spade.vgg

    monkeypatch.setattr(spade.vgg, "WIDTHS", (2, 3, 4, 5, 6))
    vgg = randomize(spade.vgg.VGG19(False))
    state = vgg_state(vgg, lambda b, n, leaf: f"vgg19_conv{b}_{n}_weights")
    for name, value in (state | {"vgg19_fc6_weights": np.zeros((4, 4), "f4")}).items():
        (tmp_path / name).write_bytes(variable(value))
    loaded = arrays(spade.vgg.load_vgg(tmp_path))
    for name, value in arrays(vgg).items():
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)
    (tmp_path / "vgg19_conv3_2_weights").unlink()
    with pytest.raises(UserError, match="--vgg19_pretrain .*conv3_2.weight"):
        spade.vgg.load_vgg(tmp_path)
