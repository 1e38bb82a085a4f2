"""AttGAN's and STGAN's losses by hand, their gradient penalty against differences, their training
steps against the authors', written out again.
"""

import copy
import json

import numpy as np
import paddle.nn.functional as F
import pytest

from scripts import make_toy_data as toy
from shared_metrics import process
from shared_metrics.errors import UserError
from tests.classic_gans import face_rooms as rooms
from tests.classic_gans.networks import check_penalty_gradient, tensor

RNG = np.random.default_rng


@pytest.fixture(params=["attgan", "stgan"])
def room(paper, request):
    """(model, trainer)"""
    return rooms.load(paper, request.param)


@pytest.fixture
def trainer(room):
    return room[1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    "gan_mode, d, g",
    [
        ("wgan", lambda r, f: f - r, lambda f: -f),
        ("lsgan", lambda r, f: (r - 1) ** 2 + f**2, lambda f: (f - 1) ** 2),
        (
            "dcgan",
            lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
            lambda f: -np.log(sigmoid(f)),
        ),
    ],
)
def test_adversarial_losses(trainer, gan_mode, d, g):
    real, fake = RNG(0).standard_normal((2, 5, 1))
    loss = trainer.d_adversarial_loss(tensor(real), tensor(fake), gan_mode)
    assert loss.item() == pytest.approx(d(real, fake).mean(), rel=1e-5)
    loss = trainer.g_adversarial_loss(tensor(fake), gan_mode)
    assert loss.item() == pytest.approx(g(fake).mean(), rel=1e-5)


def test_classification_is_the_mean_over_all_entries(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = RNG(1).integers(0, 2, (4, 3))
    p = sigmoid(logits)
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    loss = trainer.classification_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_is_the_mean_absolute_difference(trainer):
    a, b = RNG(0).standard_normal((2, 2, 3, 4, 4))
    loss = trainer.reconstruction_loss(tensor(a), tensor(b))
    assert loss.item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_penalty_of_a_quadratic_critic(trainer):
    """D(x) = sum(x^2) / 2 has the gradient x: the norm is that of the point between."""
    real, fake = RNG(0).standard_normal((2, 3, 3, 4, 4))
    alpha = RNG(1).uniform(size=(3, 1, 1, 1))
    between = real + alpha * (fake - real)
    expected = ((np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2).mean()

    def D(x):
        return (x.square() / 2).sum([1, 2, 3]), None

    loss = trainer.gradient_penalty(D, tensor(real), tensor(fake), tensor(alpha))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_penalty_of_a_critic_without_gradient_is_finite(trainer):
    weight = tensor(np.zeros((1, 3, 4, 4)))
    weight.stop_gradient = False
    x = tensor(np.ones((2, 3, 4, 4)))
    alpha = tensor(np.ones((2, 1, 1, 1)))
    loss = trainer.gradient_penalty(lambda x: (x * weight, None), x, x, alpha)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert np.isfinite(weight.grad.numpy()).all()


def test_dragans_other_end_goes_by_the_deviation_of_the_whole_batch(trainer):
    real = RNG(0).standard_normal((2, 3, 4, 4)) * 3 + 1
    noise = RNG(1).uniform(size=real.shape)
    other = trainer.perturbed(tensor(real), tensor(noise))
    np.testing.assert_allclose(other.numpy(), real + 0.5 * real.std() * noise, rtol=1e-5)


@pytest.mark.parametrize("dis_norm", ["instance_norm", "none"])
@pytest.mark.parametrize("dragan", [False, True])
def test_gradient_of_the_penalty(room, dis_norm, dragan):
    model, trainer = room
    sizes = {"image_size": 16, "c_dim": 2, "d_base_dims": 2, "d_fc_dim": 4, "n_layers": 2}
    skips = {"shortcut_layers": 1, "inject_layers": 1}
    skips |= {"gru_n_layers": 1} if hasattr(model, "STU") else {}
    arch = model.Architecture(**sizes, **skips, dis_norm=dis_norm)
    alpha = tensor(RNG(2).uniform(size=(2, 1, 1, 1)), "float64")
    noise = tensor(RNG(3).uniform(size=(2, 3, 16, 16)), "float64")
    real, fake = RNG(0).standard_normal((2, 2, 3, 16, 16))

    def penalty(D, real, fake):
        other = trainer.perturbed(real, noise) if dragan else fake
        return trainer.gradient_penalty(D, real, other, alpha)

    check_penalty_gradient(model.Discriminator(arch), penalty, real, fake)


# ---- training steps ----

NAMES = ("Smiling", "Black_Hair", "Male")
TINY = "--image_size 16 --g_base_dims 4 --d_base_dims 4 --d_fc_dim 8 --n_layers 2"
TINY += " --shortcut_layers 1 --inject_layers 1 --batch_size 4 --n_samples 2 --log_every 1"


def is_stgan(trainer):
    return trainer.__name__.startswith("stgan")


def make(trainer, tmp_path, *words, names=NAMES):
    units = ["--gru_n_layers", "1", "--bn_momentum", "0.9"] if is_stgan(trainer) else []
    args = rooms.parse(trainer, tmp_path / "run", *TINY.split(), *units, *words)
    return trainer.Trainer(args, (rooms.Faces(12, names), rooms.Faces(3, names, seed=1)))


def batches(count, n=4):
    rng = RNG(5)
    for _ in range(count):
        x = rng.uniform(-1, 1, (n, 3, 16, 16)).astype("float32")
        yield x, rng.integers(0, 2, (n, 3)).astype("float32")


def bce(logits, labels):
    p = F.sigmoid(logits)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


class Twin:
    """The authors' two steps, wgan: each on the batch it is given; G's condition is (2 b - 1) 0.4,
    or in STGAN what that is more than a's.
    """

    def __init__(self, ours, stgan, g_lr, d_lr):
        self.G = copy.deepcopy(ours.G)
        self.D = copy.deepcopy(ours.D)
        self.stgan = stgan
        self.adam_G = rooms.Adam(self.G, g_lr, 0.5, 0.999)
        self.adam_D = rooms.Adam(self.D, d_lr, 0.5, 0.999)

    def condition(self, a, b):
        return (b - a) * 0.8 if self.stgan else (2 * b - 1) * 0.4

    def d_step(self, x, a, b, alpha):
        fake = self.G(x, self.condition(a, b)).detach()
        real, logits = self.D(x)
        adversarial = self.D(fake)[0].mean() - real.mean()
        cls = bce(logits, a)
        gp = rooms.penalty(self.D, x + alpha * (fake - x))
        self.adam_D.step(adversarial + cls + 7 * gp)
        return {"d_loss_adv": adversarial, "d_loss_cls": cls, "d_loss_gp": gp}

    def g_step(self, x, a, b):
        if self.stgan:
            fake = self.G(x, self.condition(a, b))
            rec = self.G(x, a * 0)
        else:
            features = self.G.encode(x)
            fake = self.G.decode(features, self.condition(a, b))
            rec = self.G.decode(features, self.condition(a, a))
        scores, logits = self.D(fake)
        cls = bce(logits, b)
        rec = (x - rec).abs().mean()
        self.adam_G.step(-scores.mean() + 3 * cls + 5 * rec)
        return {"g_loss_adv": -scores.mean(), "g_loss_cls": cls, "g_loss_rec": rec}


def gradients(network):
    return [None if p.grad is None else p.grad.numpy().tolist() for p in network.parameters()]


def test_six_iterations_are_the_authors(trainer, tmp_path):
    """Every iteration has a batch of its own: D, D, G, D, D, G with two updates of D for one of G;
    BatchNorms move in every pass.
    """
    words = "--num_discriminator_time 2 --lambda_cls 3 --lambda_rec 5 --lambda_gp 7 --thres_int 0.4"
    ours = make(trainer, tmp_path, *words.split(), "--g_lr", "1e-3", "--d_lr", "2e-3")
    twin = Twin(ours, is_stgan(trainer), 1e-3, 2e-3)
    stream = batches(6)
    for iteration, (x, a) in enumerate(batches(6)):
        d_gradients = gradients(ours.D)
        logs = ours.train_step(iteration, stream)
        rng = process.rng(0, "step", iteration, 0)
        b = tensor(a[rng.permutation(4)])
        x = tensor(x)
        a = tensor(a)
        if iteration % 3 < 2:
            alpha = tensor(rng.random((4, 1, 1, 1), dtype=np.float32))
            rooms.assert_losses(logs, **twin.d_step(x, a, b, alpha))
            assert "g_loss" not in logs
            rooms.assert_same(ours.D, twin.D)
        else:
            rooms.assert_losses(logs, **twin.g_step(x, a, b))
            assert "d_loss" not in logs and gradients(ours.D) == d_gradients  # D is fixed
        if iteration == 0:
            assert all(p.grad is None for p in ours.update_G.parameters)
        if iteration > 1:
            rooms.assert_same(ours.G, twin.G)


def test_by_default_the_sixth_batch_is_gs(trainer, tmp_path):
    ours = make(trainer, tmp_path)
    stream = batches(12)
    learning = ["g_loss" in ours.train_step(i, stream) for i in range(12)]
    assert learning == ([False] * 5 + [True]) * 2


def test_batch_norms_move_with_every_pass(trainer, tmp_path):
    """One step of D and one of G: AttGAN's encoder twice, its decoder three times; STGAN's both
    three times.
    """
    ours = make(trainer, tmp_path, "--num_discriminator_time", "1")
    calls = {"enc": 0, "dec": 0}

    def count(layer, inputs, outputs, part):
        calls[part] += layer.training

    for part, layers in (("enc", ours.G.enc_layers), ("dec", ours.G.dec_layers)):
        layers[0].layers[1].register_forward_post_hook(lambda *a, part=part: count(*a, part))
    stream = batches(2)
    for iteration in range(2):
        ours.train_step(iteration, stream)
    assert calls == {"enc": 3 if is_stgan(trainer) else 2, "dec": 3}


def test_every_choice_of_every_flag_takes_a_step_of_both(trainer, tmp_path):
    choices = [("dis_norm", "none"), ("slope", 0), ("fc_slope", 0), ("inject_layers", 0)]
    if is_stgan(trainer):
        choices += [("use_gru", False), ("pass_state", "gru"), ("pass_state", "direct")]
    else:
        choices += [("shortcut_layers", 0)]
    for flag, value in choices:
        ours = make(trainer, tmp_path, "--num_discriminator_time", "1", f"--{flag}", str(value))
        stream = batches(2)
        logs = ours.train_step(0, stream) | ours.train_step(1, stream)
        assert {"d_loss", "g_loss"} < logs.keys(), flag
        assert all(np.isfinite(float(loss)) for loss in logs.values()), flag


@pytest.mark.parametrize("gan_mode", ["lsgan", "dcgan"])
def test_the_other_losses_have_dragans_penalty(trainer, tmp_path, gan_mode):
    ours = make(trainer, tmp_path, "--gan_mode", gan_mode)
    twin = copy.deepcopy(ours.D)
    ((x, a),) = batches(1)
    logs = ours.train_step(0, batches(1))
    rng = process.rng(0, "step", 0, 0)
    rng.permutation(4)
    alpha = rng.random((4, 1, 1, 1), dtype=np.float32)
    other = x + 0.5 * x.std() * rng.random(x.shape, dtype=np.float32)
    expected = rooms.penalty(twin, tensor(x + alpha * (other - x)))
    assert logs["d_loss_gp"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_both_rates_fall_to_a_tenth_at_epoch_100_of_the_batches(trainer, tmp_path):
    """Twelve faces in batches of four are three iterations an epoch, whoever learns in them."""
    ours = make(trainer, tmp_path)
    assert (ours.per_epoch, ours.total) == (3, 600)
    for iteration, share in ((0, 1), (299, 1), (300, 0.1), (599, 0.1), (600, 0.01)):
        ours.set_rates(iteration)
        for update in (ours.update_G, ours.update_D):
            assert update.optimizer.get_lr() == pytest.approx(2e-4 * share)


def test_g_and_d_have_rates_of_their_own(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--g_lr", "1e-3", "--d_lr", "5e-4", "--lr_decay_epoch", "2")
    ours.train_step(6, batches(1))
    rates = [update.optimizer.get_lr() for update in (ours.update_G, ours.update_D)]
    assert rates == pytest.approx([1e-4, 5e-5])


# ---- sheets and runs ----


def test_a_sheet_asks_for_one_attribute_after_the_other(trainer, tmp_path):
    """The changed entry is plus or minus test_int, 1, the others thres_int, 0.5."""
    ours = make(trainer, tmp_path)
    conditions = []
    forward = ours.G.forward
    ours.G.forward = lambda x, a: (conditions.append(a.numpy()), forward(x, a))[1]
    statistics = [b.numpy().copy() for b in ours.G.state_dict().values()]
    labels = np.float32([[1, 0, 1], [0, 0, 1]])
    picture = ours.editor.sheet(ours.shown[0], labels)
    assert picture.dtype == np.uint8 and len(conditions) == 3
    entries = np.float32([[0.5, -0.5, 0.5], [-0.5, -0.5, 0.5]])
    for i in range(3):
        wanted = entries.copy()
        wanted[:, i] *= -2
        expected = wanted - entries if is_stgan(trainer) else wanted
        np.testing.assert_allclose(conditions[i], expected)
    assert ours.G.training
    for before, after in zip(statistics, ours.G.state_dict().values(), strict=True):
        np.testing.assert_array_equal(before, after.numpy())


def test_a_resumed_run_is_the_whole_one_bit_for_bit(trainer, tmp_path):
    toy.make(tmp_path / "faces", "celeba", count=12, val_count=4, size=16)
    words = ["--data_dir", tmp_path, "--dataset", "faces", "--crop_size", "0"]
    words += ["--split", "official", "--selected_attrs", "Smiling,Eyeglasses"]
    words += ["--num_discriminator_time", "2", *TINY.split()]
    words += ["--gru_n_layers", "1"] if is_stgan(trainer) else []

    def train(name, iterations, *more):
        more = [*words, "--iterations", iterations, *more]
        ours = trainer.Trainer(rooms.parse(trainer, tmp_path / name, *more))
        assert ours.train([ours.describe()]) == 0
        return rooms.state_of(ours)

    whole = train("whole", 7)
    train("parts", 4)
    parts = train("parts", 7, "--resume")
    for part in ("generator", "discriminator"):
        for name, value in whole[part].items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=name)
    assert "12 faces: Smiling" in (tmp_path / "parts" / "log.txt").read_text()
    # A sheet and a checkpoint an epoch, of three iterations.
    sheets = sorted(path.name for path in (tmp_path / "whole" / "samples").iterdir())
    assert sheets == [f"iter_000000{i}.png" for i in (3, 6, 7)]


class Judge:
    """Sees of the attributes what the mean of a face is: all, or none."""

    classes = ["Male", "Smiling", "Black_Hair"]
    info = {"judge": "toy"}

    def predict(self, images):
        return np.tile(images.mean((1, 2, 3))[:, None] > 127, (1, 3)).astype("f4")


def test_what_a_judge_sees_in_each_sheets_faces_is_logged(trainer, tmp_path, monkeypatch):
    import face_measures

    monkeypatch.setattr(face_measures, "open_judge", lambda path, names: path and Judge())
    words = ["--attribute_judge", "f", "--iterations", "2", "--sample_every", "2"]
    ours = make(trainer, tmp_path, *words)
    ours.shown = (ours.shown[0], np.float32([[1, 1, 0], [0, 0, 0]]))
    ours.G.forward = lambda x, condition: x * 0 + 1.0  # a face with all attributes
    ours.train_step = lambda iteration, batches: {}
    assert ours.train() == 0
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().split("\n")[:-1]
    ]
    (row,) = [row for row in rows if "judge_accuracy" in row]
    # Each attribute is to come in one or both faces, and to go in the others.
    assert row["judge_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    # Of the two others of each, the first face has one or both, the second none.
    assert row["judge_preservation"] == pytest.approx((1 / 4 + 1 / 4 + 2 / 4) / 3)


def test_weights_of_other_attributes_and_networks_are_refused(trainer, tmp_path):
    state = rooms.state_of(make(trainer, tmp_path))
    assert state["selected_attrs"] == list(NAMES) and state["thres_int"] == 0.5
    other = make(trainer, tmp_path, names=("Smiling", "Male", "Black_Hair"))
    with pytest.raises(UserError, match="trained on the attributes Smiling,Black_Hair,Male"):
        other.start_from(state, "f")
    other = make(trainer, tmp_path, "--fc_slope", "0")
    with pytest.raises(UserError, match="fc_slope 0.2 there, 0.0 here"):
        other.start_from(state, "f")
    del state["discriminator"]  # then D's fields tell nothing
    assert "holds no discriminator" in other.start_from(state, "f")[0]
    generator = other.G.state_dict()
    for name, value in state["generator"].items():
        np.testing.assert_array_equal(generator[name].numpy(), value)
