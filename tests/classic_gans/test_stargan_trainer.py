"""StarGAN's losses by hand, its gradient penalty against differences, its training steps against
the authors', written out again.
"""

import copy
import shutil

import numpy as np
import paddle.nn.functional as F
import pytest

from scripts import make_toy_data as toy
from shared_metrics import process
from shared_metrics.errors import UserError
from tests.classic_gans import face_rooms as rooms
from tests.classic_gans.networks import check_penalty_gradient, tensor

RNG = np.random.default_rng


@pytest.fixture
def trainer(paper):
    paper("classic_gans")
    import stargan.trainer

    return stargan.trainer


def test_classification_is_summed_over_attributes_and_averaged_over_the_batch(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = RNG(1).integers(0, 2, (4, 3))
    p = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum() / 4
    loss = trainer.classification_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_classes_have_a_softmax(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = np.eye(3)[[2, 0, 1, 1]]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log((p * labels).sum(1)).mean()
    loss = trainer.class_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_is_the_mean_absolute_difference(trainer):
    a, b = RNG(0).standard_normal((2, 2, 3, 4, 4))
    loss = trainer.reconstruction_loss(tensor(a), tensor(b))
    assert loss.item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_penalty_of_a_quadratic_critic(trainer):
    """D(x) = sum(x^2) / 2 has the gradient x: the norm is that of the point between."""
    real, fake = RNG(0).standard_normal((2, 3, 3, 4, 4))
    alpha = RNG(1).uniform(size=(3, 1, 1, 1))
    between = alpha * real + (1 - alpha) * fake
    expected = ((np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2).mean()

    def D(x):
        return (x.square() / 2).sum([2, 3]), None

    loss = trainer.gradient_penalty(D, tensor(real), tensor(fake), tensor(alpha))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_penalty_of_a_critic_without_gradient_is_finite(trainer):
    """The square root's derivative at 0 is infinite: 1e-16 keeps the weights' gradient a number."""
    weight = tensor(np.zeros((1, 3, 4, 4)))
    weight.stop_gradient = False
    x = tensor(np.ones((2, 3, 4, 4)))
    loss = trainer.gradient_penalty(
        lambda x: (x * weight, None), x, x, tensor(np.ones((2, 1, 1, 1)))
    )
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert np.isfinite(weight.grad.numpy()).all()


def test_gradient_of_the_penalty(trainer):
    import stargan.model

    arch = stargan.model.Architecture(
        image_size=16, c_dim=2, d_base_dims=2, d_repeat_num=2, g_base_dims=2
    )
    alpha = tensor(RNG(2).uniform(size=(2, 1, 1, 1)), "float64")
    real, fake = RNG(0).standard_normal((2, 2, 3, 16, 16))
    check_penalty_gradient(
        stargan.model.Discriminator(arch),
        lambda D, real, fake: trainer.gradient_penalty(D, real, fake, alpha),
        real,
        fake,
    )


# ---- training steps ----

TINY = "--image_size 16 --g_base_dims 4 --d_base_dims 4 --d_repeat_num 3 --g_repeat_num 1"
TINY += " --batch_size 4 --n_samples 2 --log_every 1"


def make(trainer, tmp_path, *words, names=("Smiling", "Black_Hair", "Male")):
    args = rooms.parse(trainer, tmp_path / "run", *TINY.split(), *words)
    return trainer.Trainer(args, ([rooms.Faces(12, names)], rooms.Faces(3, names, seed=1)))


def batches(count, n=4, labels=3):
    rng = RNG(5)
    for _ in range(count):
        x = rng.uniform(-1, 1, (n, 3, 16, 16)).astype("float32")
        yield x, rng.integers(0, 2, (n, labels)).astype("float32")


def bce(logits, labels):
    """Cross-entropies of the attributes, summed, the batch's mean."""
    p = F.sigmoid(logits)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).sum() / len(labels)


class Twin:
    """The authors' step: D(real), D(fake), penalty; every n_critic-th time G on the same batch."""

    def __init__(self, ours, g_lr, d_lr):
        self.G = copy.deepcopy(ours.G)
        self.D = copy.deepcopy(ours.D)
        self.adam_G = rooms.Adam(self.G, g_lr, 0.5, 0.999)
        self.adam_D = rooms.Adam(self.D, d_lr, 0.5, 0.999)

    def d_step(self, x, source, target, alpha):
        real, logits = self.D(x)
        fake = self.G(x, target).detach()
        cls = bce(logits, source)
        gp = rooms.penalty(self.D, alpha * x + (1 - alpha) * fake)
        adversarial = self.D(fake)[0].mean() - real.mean()
        self.adam_D.step(adversarial + 0.5 * cls + 7 * gp)
        return {"d_loss_cls": cls, "d_loss_gp": gp, "d_loss_real": -real.mean()}

    def g_step(self, x, source, target):
        fake = self.G(x, target)
        scores, logits = self.D(fake)
        cls = bce(logits, target)
        rec = (x - self.G(fake, source)).abs().mean()
        self.adam_G.step(-scores.mean() + 0.5 * cls + 3 * rec)
        return {"g_loss_cls": cls, "g_loss_rec": rec, "g_loss_fake": -scores.mean()}


def test_four_iterations_are_the_authors(trainer, tmp_path):
    """Consecutive batches; of every second one G learns as well, with the updated D and a fake of
    its own; targets are the batch's labels, permuted.
    """
    words = "--n_critic 2 --lambda_cls 0.5 --lambda_rec 3 --lambda_gp 7 --g_lr 1e-3 --d_lr 2e-3"
    ours = make(trainer, tmp_path, *words.split(), "--lr_decay", "none")
    twin = Twin(ours, 1e-3, 2e-3)
    stream = batches(4)
    for iteration, (x, labels) in enumerate(batches(4)):
        logs = ours.train_step(iteration, [stream])
        rng = process.rng(0, "step", iteration, 0, 0)
        target = tensor(labels[rng.permutation(4)])
        alpha = tensor(rng.random((4, 1, 1, 1), dtype=np.float32))
        x = tensor(x)
        source = tensor(labels)
        rooms.assert_losses(logs, **twin.d_step(x, source, target, alpha))
        if iteration == 0:
            assert all(p.grad is None for p in ours.G.parameters())
        rooms.assert_same(ours.D, twin.D)  # before the twin's G step leaves gradients there
        assert ("g_loss" in logs) == (iteration % 2 == 1)
        if iteration % 2:
            rooms.assert_losses(logs, **twin.g_step(x, source, target))
            rooms.assert_same(ours.G, twin.G)


def test_the_target_is_a_permutation_of_the_batchs_labels(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--n_critic", "1", "--batch_size", "8")
    conditions = []
    ours.G.register_forward_pre_hook(lambda layer, inputs: conditions.append(inputs[1].numpy()))
    ((x, labels),) = batches(1, n=8)
    ours.train_step(0, [batches(1, n=8)])
    to_d, to_g, back = conditions
    np.testing.assert_array_equal(to_d, to_g)
    np.testing.assert_array_equal(back, labels)  # the reconstruction
    assert sorted(map(tuple, to_d)) == sorted(map(tuple, labels)) and (to_d != labels).any()


def test_g_runs_three_times_where_it_learns_and_once_elsewhere(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--n_critic", "3")
    calls = []
    ours.G.register_forward_pre_hook(lambda layer, inputs: calls.append(iteration))
    stream = batches(6)
    for iteration in range(6):
        ours.train_step(iteration, [stream])
    assert [calls.count(iteration) for iteration in range(6)] == [1, 1, 3, 1, 1, 3]


def test_rates_fall_linearly_to_0_over_the_second_half(trainer, tmp_path):
    ours = make(trainer, tmp_path, "--num_iters", "200", "--lr_update_step", "10")
    assert ours.total == 200
    rates = {}
    for iteration in (0, 99, 109, 110, 150, 159, 199):
        ours.set_rates(iteration)
        assert ours.update_D.optimizer.get_lr() == ours.update_G.optimizer.get_lr()
        rates[iteration] = ours.update_G.optimizer.get_lr() / 1e-4
    expected = {0: 1, 99: 1, 109: 1, 110: 0.9, 150: 0.5, 159: 0.5, 199: 0.1}
    assert rates == pytest.approx(expected)
    ours.args.lr_decay = "none"
    ours.set_rates(199)
    assert ours.update_G.optimizer.get_lr() == pytest.approx(1e-4)


def test_length_in_iterations_epochs_or_as_the_authors(trainer, tmp_path):
    assert make(trainer, tmp_path).total == 200_000
    assert make(trainer, tmp_path, "--epoch", "20").total == 20 * 3
    assert make(trainer, tmp_path, "--epoch", "20", "--iterations", "7").total == 7


# ---- two data sets ----


@pytest.fixture
def both(tmp_path):
    """(folder of toy faces with attributes, folder of faces in two classes)"""
    faces = toy.make(tmp_path / "faces", "celeba", count=12, val_count=4, size=16)
    for number, path in enumerate(sorted((faces / "img_align_celeba").iterdir())[:8]):
        folder = tmp_path / "rafd" / ("happy" if number % 2 else "angry")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return faces, tmp_path / "rafd"


def joint(trainer, tmp_path, both, *words):
    words = [*TINY.split(), "--data_dir", tmp_path, "--dataset", "faces", *words]
    words += ["--crop_size", "0", "--rafd_crop_size", "0", "--rafd_image_dir", both[1]]
    words += ["--split", "official", "--selected_attrs", "Smiling,Black_Hair,Blond_Hair"]
    return trainer.Trainer(rooms.parse(trainer, tmp_path / "run", *words))


def test_of_two_data_sets_each_teaches_its_own_labels(trainer, tmp_path, both):
    ours = joint(trainer, tmp_path, both, "--n_critic", "1", "--iterations", "1")
    assert (ours.arch.c_dim, ours.arch.c2_dim, ours.arch.planes) == (3, 2, 7)
    assert ours.describe().startswith("12 faces: Smiling ")
    assert ours.describe().endswith("; 8 faces: angry 4 (50.0%), happy 4 (50.0%)")
    conditions = []
    ours.G.register_forward_pre_hook(lambda layer, inputs: conditions.append(inputs[1].numpy()))
    logits = []
    ours.D.register_forward_post_hook(lambda layer, inputs, outputs: logits.append(outputs[1]))
    first = np.float32([[1, 0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0]])
    second = np.float32([[0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 1]])
    x = RNG(0).uniform(-1, 1, (2, 3, 16, 16)).astype("float32")
    logs = ours.train_step(0, [iter([(x, first)]), iter([(x, second)])])
    real = logits[0].numpy()[:, :3]
    p = 1 / (1 + np.exp(-real))
    expected = -(first[:, :3] * np.log(p) + (1 - first[:, :3]) * np.log(1 - p)).sum() / 2
    assert logs["d_loss_cls"].item() == pytest.approx(expected, rel=1e-4)
    real = logits[4].numpy()[:, 3:]  # after three of D's step and one of G's
    p = np.exp(real) / np.exp(real).sum(1, keepdims=True)
    expected = -np.log((p * second[:, 3:5]).sum(1)).mean()
    assert logs["d_loss_cls_2"].item() == pytest.approx(expected, rel=1e-4)
    assert logs.keys() == {f"{n}{s}" for n in logs for s in ("", "_2") if not n.endswith("_2")}
    masks = [label[:, 5:].tolist() for label in conditions]
    assert masks == [[[1, 0]] * 2] * 3 + [[[0, 1]] * 2] * 3


def test_a_joint_sheet_has_a_row_for_every_label_and_back(trainer, tmp_path, both):
    ours = joint(trainer, tmp_path, both)
    conditions = []
    ours.G.register_forward_pre_hook(lambda layer, inputs: conditions.append(inputs[1].numpy()))
    ours.editor.sheet(*ours.shown, back=True)
    targets = np.stack(conditions[::2])[:, 0]  # of the first face
    source = conditions[1][0]
    assert targets.shape == (5, 7)
    np.testing.assert_array_equal(targets[0], [1 - source[0], *source[1:]])
    np.testing.assert_array_equal(targets[1], [source[0], 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(targets[4], [0, 0, 0, 0, 1, 0, 1])


def test_class_folders_alone(trainer, tmp_path, both):
    words = [*TINY.split(), "--data_dir", tmp_path, "--dataset", "rafd", "--crop_size", "0"]
    ours = trainer.Trainer(rooms.parse(trainer, tmp_path / "run", *words))
    assert ours.parts == [(slice(0, 2), trainer.class_loss)]
    assert ours.about["exclusive"] == ours.about["choices"] == [["angry", "happy"]]
    np.testing.assert_array_equal(ours.editor.edits(ours.held_out.labels[:1])[:, 0], np.eye(2))


# ---- runs ----


def test_a_resumed_run_is_the_whole_one_bit_for_bit(trainer, tmp_path, both):
    def train(name, iterations, *words):
        ours = joint(trainer, tmp_path, both, "--n_critic", "2", "--iterations", iterations, *words)
        ours.args.output_dir = str(tmp_path / name)
        assert ours.train() == 0
        return rooms.state_of(ours)

    whole = train("whole", 5)
    train("parts", 3)
    parts = train("parts", 5, "--resume")
    for part in ("generator", "discriminator"):
        for name, value in whole[part].items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=name)
    sheets = sorted(path.name for path in (tmp_path / "parts" / "samples").iterdir())
    assert sheets[-1] == "iter_0000005.png"


def test_weights_of_other_attributes_and_networks_are_refused(trainer, tmp_path):
    state = rooms.state_of(make(trainer, tmp_path))
    assert state["selected_attrs"] == ["Smiling", "Black_Hair", "Male"]
    other = make(trainer, tmp_path, names=("Smiling", "Male", "Black_Hair"))
    with pytest.raises(UserError, match="trained on the attributes Smiling,Black_Hair,Male"):
        other.start_from(state, "f")
    other = make(trainer, tmp_path, "--legacy")
    with pytest.raises(UserError, match="d_slope 0.01 there, 0.2 here; d_bias True there"):
        other.start_from(state, "f")
    del state["discriminator"]  # then D's fields tell nothing
    assert other.start_from(state, "f") == [
        "f: holds no discriminator; it starts from its initial weights"
    ]
