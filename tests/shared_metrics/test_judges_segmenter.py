"""The segmenter: its counts, its training, its files, and networks exported by others."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.base import framework
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.judges import segmenter as judges
from shared_metrics.judges.__main__ import main
from shared_metrics.judges.pairs import PREPROCESS, Pairs
from shared_metrics.process import command
from shared_metrics.runs import checkpoint
from tests.conftest import run_cli


def test_confusion_against_numbers_worked_out_by_hand():
    """Classes 0 to 3 of 4, unknown 4, void 255; class 3 occurs nowhere.

    truth  0 0 0 1 1 2 4 255      right: 0 twice, 1 once, 2 never: 3 of 6 known pixels
    seen   0 0 1 1 2 9 0 0        unions: 0: 3 + 2 - 2 = 3, 1: 2 + 2 - 1 = 3, 2: 1 + 1 - 0 = 2
    """
    confusion = judges.Confusion(4)
    truth, seen = np.array([0, 0, 0, 1, 1, 2, 4, 255]), np.array([0, 0, 1, 1, 2, 9, 0, 0])
    confusion.update(truth[:5].reshape(1, 5), seen[:5].reshape(1, 5))
    confusion.update(truth[5:], seen[5:])
    assert confusion.pixel_accuracy() == pytest.approx(3 / 6)
    assert confusion.ious() == pytest.approx({0: 2 / 3, 1: 1 / 3, 2: 0.0})
    assert confusion.miou() == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    without = judges.Confusion(4, ignore=[0])
    without.update(truth, seen)
    assert without.pixel_accuracy() == pytest.approx(1 / 3)
    assert without.ious() == pytest.approx({1: 1 / 2, 2: 0.0})  # the 1 seen on a 0 no longer counts


def test_a_class_seen_where_it_is_not_counts_as_missed():
    confusion = judges.Confusion(3)
    confusion.update(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 2]))
    assert confusion.ious() == {0: 0.75, 2: 0.0} and confusion.miou() == 0.375


@pytest.mark.parametrize(
    "truth, ignore, told",
    [
        ([255, 3, 3], [], "no class 0 to 2 occurs"),
        ([1, 1, 3], [], "only class 1 occurs"),
        ([0, 1, 3], [0], "only class 1 occurs"),
        ([0, 1, 3], [], ""),
    ],
)
def test_fewer_than_two_true_classes_have_no_score_but_a_line(truth, ignore, told):
    confusion = judges.Confusion(3, ignore)
    confusion.update(np.array(truth), np.array([1, 1, 1]))
    assert told in confusion.nothing() and bool(confusion.nothing()) == bool(told)
    assert confusion.scores("_real").keys() == (
        set() if told else {"miou_real", "pixel_accuracy_real"}
    )


def test_a_black_and_white_mask_is_told_and_its_segmenter_has_no_score(tmp_path, capsys):
    coloured(tmp_path / "d", "train", 4)
    coloured(tmp_path / "d", "val", 2)
    for path in (tmp_path / "d").glob("*_inst/*.png"):
        save_png(np.uint8(np.asarray(Image.open(path)) > 0) * 255, path)
    flags = [
        "segmenter",
        "--data_path",
        str(tmp_path / "d"),
        "--output",
        str(tmp_path / "s.pdparams"),
    ]
    flags += "--label_nc 2 --crop_size 8 --width 1 --device cpu --num_workers 0 --epochs 1".split()
    main([*flags, "--batch_size", "2"])
    told = capsys.readouterr().out
    assert "train_inst: in 4 of 4 label maps only 0 and 255 occur: a black-and-white mask" in told
    assert "only class 0 occurs" in told and "held-out no score" in told
    assert judges.load_segmenter(tmp_path / "s.pdparams").info["held_out"] == {}


def coloured(root, split, count):
    """Pairs of 16 px in which channel k of the photo is brighter wherever the map says k, in blocks
    of 4 px.
    """
    rng = np.random.default_rng(count)
    for i in range(count):
        labels = np.kron(rng.integers(3, size=(4, 4)), np.ones((4, 4), int))
        photo = rng.integers(0, 150, (16, 16, 3)) + 100 * np.eye(3, dtype=int)[labels]
        for name, array in (("img", photo), ("inst", labels)):
            (root / f"{split}_{name}").mkdir(parents=True, exist_ok=True)
            save_png(array.astype(np.uint8), root / f"{split}_{name}" / f"{i}.png")


def test_trained_from_the_command_line_it_knows_held_out_photos(paper, tmp_path):
    coloured(tmp_path / "d", "train", 32)
    coloured(tmp_path / "d", "val", 4)
    flags = "--label_nc 3 --crop_size 16 --epochs 8 --batch_size 4 --width 4".split()
    flags += "--device cpu --num_workers 0".split()
    out = tmp_path / "s.pdparams"
    done = run_cli(".", "-m", "shared_metrics.judges", "segmenter", "--data_path",
                   tmp_path / "d", *flags, "--output", out)  # fmt: skip
    told = done.stdout.splitlines()[-1]
    judge = judges.load_segmenter(out)
    assert judge.num_classes == 3 and judge.info["held_out"]["pixel_accuracy"] > 0.7
    assert f"pixel accuracy {judge.info['held_out']['pixel_accuracy']:.4f}" in told

    # The photos that gaugan_simam holds its generated ones against, read by its own data set.
    gaugan = paper("gaugan_simam")
    data = gaugan.dataset.PairFolder(
        tmp_path / "d", split="val", label_nc=3, crop_size=16, train=False
    )
    confusion = judges.Confusion(3)
    for pictures in data.pictures():  # uint8 pictures meet the normalisation of the training
        confusion.update(np.stack([data.load(i)[0] for i in range(4)]), judge.predict(pictures))
    scores = {"pixel_accuracy": confusion.pixel_accuracy(), "miou": confusion.miou()}
    assert scores == pytest.approx(judge.info["held_out"])


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_a_batch_or_two_train(tmp_path, capsys, steps):
    """Of 1 to 19 steps in all a tenth is one step or none."""
    coloured(tmp_path / "d", "train", 16)
    coloured(tmp_path / "d", "val", 2)
    flags = [
        "segmenter",
        "--data_path",
        str(tmp_path / "d"),
        "--output",
        str(tmp_path / "s.pdparams"),
    ]
    flags += "--label_nc 3 --crop_size 8 --width 1 --device cpu --num_workers 0 --epochs 1".split()
    main([*flags, "--batch_size", str(16 // steps)])
    held_out = judges.load_segmenter(tmp_path / "s.pdparams").info["held_out"]
    assert 0 <= held_out["miou"] <= held_out["pixel_accuracy"] <= 1
    assert f"saved {tmp_path}/s.pdparams: held-out pixel accuracy" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command(main)([*flags, "--overwrite", "--batch_size", "17"])
    assert "--batch_size 17: the data has only 16 image" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, told",
    [
        ("--label_nc 1", "--label_nc 1: give two classes"),
        ("--label_nc 3 --crop_size 7", "--crop_size 7: the segmenter takes pictures from 8 px"),
        ("--label_nc 3 --crop_size 16 --load_size 8", "--load_size 8: smaller than --crop_size 16"),
        ("--label_nc 2 --crop_size 8", "id 2 "),
        ("--label_nc 3 --val_path none", "--data_path none: no such folder"),
    ],
)
def test_what_cannot_be_trained_is_told(tmp_path, flags, told):
    coloured(tmp_path / "d", "train", 2)
    coloured(tmp_path / "d", "val", 2)
    flags = ["segmenter", "--data_path", str(tmp_path / "d"), *flags.split(), "--batch_size", "1"]
    flags += ["--no-contain_dontcare_label", "--num_workers", "0", "--device", "cpu"]
    with pytest.raises(UserError, match=told):
        main([*flags, "--output", str(tmp_path / "s.pdparams")])
    assert not (tmp_path / "s.pdparams").exists()


@pytest.mark.parametrize("preprocess", PREPROCESS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_are_read_as_gaugan_simam_reads_them(paper, tmp_path, preprocess, split):
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(30, 20), (24, 24)]):
        labels = rng.choice([0, 1, 2, 3, 255], shape)
        photo = rng.integers(0, 256, (*shape, 3))
        for name, array in (("img", photo), ("label", labels), ("inst", labels * 0)):
            (tmp_path / f"{split}_{name}" / "sub").mkdir(parents=True, exist_ok=True)
            save_png(array.astype(np.uint8), tmp_path / f"{split}_{name}" / "sub" / f"{i}.png")
    settings = {"label_nc": 3, "crop_size": 16, "preprocess": preprocess}
    theirs = paper("gaugan_simam").dataset.PairFolder(
        tmp_path, split=split, flip=True, train=split == "train", **settings
    )
    ours = Pairs(tmp_path, split, **settings)
    assert len(ours) == len(theirs) == 2
    for i in range(2):
        for seed in range(4):
            labels, _, photo = theirs.load(i, np.random.default_rng(seed))
            seen, shown = ours.load(i, np.random.default_rng(seed))
            assert np.array_equal(shown, labels) and 3 in labels
            assert np.allclose(seen.transpose(2, 0, 1) / 127.5 - 1, photo, atol=1e-6)


def unet_file(path):
    """A file as the first version of this repository wrote it, entry by entry."""
    paddle.seed(0)
    network = judges.UNet(3, 2)
    state = {
        "segmenter": checkpoint.network_state(network),
        "width": 2,
        "num_classes": 3,
        "crop_size": 16,
        "scores": {"pixel_accuracy": 0.5, "miou": 0.25},
        "args": {},
        "format": 1,
    }
    weights.save({**state, "sha256": files.digest(state)}, path)
    return network


def test_odd_sizes_come_back_whole():
    network = judges.UNet(3, 2)
    assert network(paddle.zeros([1, 3, 13, 22])).shape == [1, 3, 13, 22]


def test_damaged_and_foreign_files_are_named(tmp_path):
    load, path = judges.load_segmenter, tmp_path / "s.pdparams"
    unet_file(path)
    assert load(path).info["sha256"] == files.file_sha256(path)
    # Pictures of any size are brought to the side that it was trained on.
    large = (
        np.random.default_rng(0)
        .integers(0, 256, (1, 4, 4, 3))
        .astype(np.uint8)
        .repeat(8, 1)
        .repeat(8, 2)
    )
    resized = np.asarray(Image.fromarray(large[0]).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(
        load(path).predict(large), load(path).predict(resized[None]).repeat(2, 1).repeat(2, 2)
    )
    with pytest.raises(UserError, match="which needs no --segmenter_mean"):
        load(path, offset=1)
    state = weights.load(path)
    state["segmenter"]["head.bias"][0] += 1
    weights.save(state, path)
    with pytest.raises(UserError, match=r"s.pdparams: damaged"):
        load(path)
    weights.save({"conv1.weight": np.zeros(3)}, path)
    with pytest.raises(
        UserError, match="not a file of `python -m shared_metrics.judges segmenter`; export"
    ):
        load(path)
    (tmp_path / "x.pdmodel").write_bytes(b"")
    with pytest.raises(UserError, match="x.pdiparams are not beside it"):
        load(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 exported networks"):
        load(tmp_path / "empty")


class Brightest(nn.Layer):
    """Logits: the channels themselves, or the number of the brightest."""

    def __init__(self, ids):
        super().__init__()
        self.gain, self.ids = (
            self.create_parameter([1], default_initializer=nn.initializer.Constant(2.0)),
            ids,
        )

    def forward(self, picture):
        logits = picture * self.gain
        return logits.argmax(axis=1) if self.ids else logits


def export(path, ids=False):
    network = Brightest(ids)
    network.eval()
    paddle.jit.save(
        network,
        str(path),
        input_spec=[paddle.static.InputSpec([None, 3, None, None], "float32", "x")],
    )


@pytest.mark.parametrize("ids", [False, True])
def test_exported_networks(tmp_path, ids):
    """Named by prefix, graph, weights or folder: the brightest channel after normalisation,
    numbered from the offset.

    Pixel 1 is brightest in green, but after (x - mean) / std with std 0.1 for blue it is blue.
    """
    (tmp_path / "net").mkdir()
    stem = tmp_path / "net" / "model.v1"
    export(stem, ids)
    graph = next(f for f in stem.parent.iterdir() if f.suffix in (".json", ".pdmodel"))
    # What paddle.jit.load would unpickle is not read: this opcode stream would run a command.
    (tmp_path / "net" / "model.v1.pdiparams.info").write_bytes(
        b"cos\nsystem\n(S'touch " + str(tmp_path).encode() + b"/run'\ntR."
    )
    image = np.array([[[[200, 0, 0], [0, 200, 150]]] * 2], np.uint8)  # (1, 2, 2, 3)
    for name in (stem, graph, stem.with_name("model.v1.pdiparams"), stem.parent):
        plain = judges.load_segmenter(name).predict(image)
        assert plain.dtype == np.int64 and plain.tolist() == [[[0, 1], [0, 1]]]
    how = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.1), offset=4, size=4)
    judge = judges.load_segmenter(stem, **how)
    assert judge.predict(image).tolist() == [[[4, 6], [4, 6]]]
    assert judge.info["sha256"] == files.file_sha256(tmp_path / "net" / "model.v1.pdiparams")
    assert not (tmp_path / "run").exists()


def test_a_damaged_export_is_told(tmp_path):
    export(tmp_path / "m")
    graph = next(f for f in tmp_path.iterdir() if f.suffix in (".json", ".pdmodel"))
    graph.write_bytes(graph.read_bytes()[:40])
    with pytest.raises(
        UserError, match=f"--segmenter .*{graph.name}: (not a whole export|holds no program)"
    ):
        judges.load_segmenter(tmp_path / "m")


def test_cut_weights_of_an_export_are_told(tmp_path):
    """Paddle runs what there is of them."""
    export(tmp_path / "m")
    weights = tmp_path / "m.pdiparams"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match="--segmenter .*its weights m.pdiparams are cut"):
        judges.load_segmenter(tmp_path / "m")


def graph_of(path, op="", **attributes):
    """An export of Paddle 2 that doubles its picture, with an operator more."""
    if paddle.__version__.startswith("2."):
        pytest.skip("Paddle 2 opens no export without weights")
    with paddle.pir_utils.OldIrGuard():
        program = framework.Program()
        block = program.global_block()
        kinds = framework.core.VarDesc.VarType
        feed = block.create_var(name="feed", type=kinds.FEED_MINIBATCH, persistable=True)
        fetch = block.create_var(name="fetch", type=kinds.FETCH_LIST, persistable=True)
        x = block.create_var(name="x", shape=[-1, 3, -1, -1], dtype="float32")
        y = block.create_var(name="y", dtype="float32")
        block.append_op(type="feed", inputs={"X": [feed]}, outputs={"Out": [x]}, attrs={"col": 0})
        if op == "save":
            block.append_op(type=op, inputs={"X": [x]}, attrs=attributes)
        if op == "fill_constant":
            block.append_op(type=op, outputs={"Out": [x]}, attrs=attributes)
        block.append_op(type="scale", inputs={"X": [x]}, outputs={"Out": [y]}, attrs={"scale": 2.0})
        block.append_op(type="fetch", inputs={"X": [y]}, outputs={"Out": [fetch]}, attrs={"col": 0})
        path.write_bytes(program.desc.serialize_to_string())
    path.with_suffix(".pdiparams").write_bytes(b"")
    return path


def test_a_graph_of_inference_alone_passes(tmp_path):
    image = np.array([[[[9, 0, 0], [0, 9, 0]]]], np.uint8)
    judge = judges.load_segmenter(graph_of(tmp_path / "g.pdmodel"), size=1)
    assert judge.predict(image).tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    "op, told",
    [
        ("save", "holds operators that are not of inference: save"),
        ("fill_constant", "asks for more than 8 GiB of memory"),
        ("garbage", "not a whole export"),
    ],
)
def test_what_a_graph_may_not_do_is_told_before_it_is_done(tmp_path, op, told):
    path = tmp_path / "g.pdmodel"
    if op == "garbage":
        path.write_bytes(bytes(range(1, 256)) * 9)
        path.with_suffix(".pdiparams").write_bytes(b"")
    elif op == "save":
        graph_of(path, op, file_path=str(tmp_path / "victim"), overwrite=True)
    else:
        graph_of(path, op, shape=[10 * 2**30], value=1.0, dtype=5)
    with pytest.raises(UserError, match=f"--segmenter .*g.pdmodel: .*{told}") as error:
        judges.load_segmenter(path)
    assert "\n" not in str(error.value) and not (tmp_path / "victim").exists()


def test_answers_that_are_no_segmentation_are_told():
    def make(network):
        return judges.Segmenter(network, (0,) * 3, (1,) * 3, {"file": "f"})

    image = np.zeros((2, 4, 4, 3), np.uint8)
    assert (
        make(lambda x: np.full((2, 1, 2, 2), 5)).predict(image).tolist()
        == np.full((2, 4, 4), 5).tolist()
    )
    for wrong in (
        np.zeros((2, 10), "float32"),
        np.zeros((2, 1, 4, 4), "float32"),
        np.zeros((1, 4, 4), np.int64),
    ):
        with pytest.raises(UserError, match=r"--segmenter f: answers"):
            make(lambda x, wrong=wrong: wrong).predict(image)
