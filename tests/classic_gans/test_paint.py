"""Drawing label maps with SPADE: which maps, at which size, what is measured, the whole way."""

import argparse
import json

import numpy as np
import paddle
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics import weights
from shared_metrics.errors import UserError
from tests.classic_gans import face_rooms as rooms
from tests.conftest import ROOT

RNG = np.random.default_rng
TINY = "--crop_width 32 --crop_height 32 --load_width 36 --load_height 36 --label_nc 5 --ngf 1"
TINY += " --ndf 2 --d_nlayers 2 --z_dim 4 --nef 1 --batch_size 2 --contain_dontcare_label"


@pytest.fixture
def room(paper):
    return rooms.load(paper, "spade")[1]


@pytest.fixture
def paint(room):
    import paint

    return paint


@pytest.fixture
def state(room, tmp_path):
    """What a checkpoint of a tiny run on toy pairs holds, also written to file.pdparams."""
    toy.make(tmp_path / "toy", "coco_stuff", classes=2, count=4, val_count=3, size=40)
    words = ["--data_dir", tmp_path, "--dataset", "toy", *TINY.split()]
    state = rooms.state_of(room.Trainer(rooms.parse(room, tmp_path / "run", *words)))
    weights.save(state, tmp_path / "file.pdparams")
    return state


def flags_of(paint, *words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    paint.paint_flags(parser)
    parser.add_argument("--num_samples", type=int)
    return parser.parse_args([str(word) for word in words])


# ---- maps and sizes ----


def test_the_test_set_of_the_training(paint, room, state, tmp_path):
    arch, notes = paint.architecture_of(flags_of(paint), state, room)
    assert notes == [] and (arch.crop_width, arch.label_nc) == (32, 5)
    data, folder = paint.open_maps(flags_of(paint), state, room, arch)
    assert len(data) == 3 and folder == str(tmp_path / "toy")
    labels, instances, photo = data.load(0)
    assert labels.shape == (32, 32) and photo.shape == (3, 32, 32)
    data, _ = paint.open_maps(flags_of(paint, "--num_samples", 2), state, room, arch)
    assert [data.name(i)[-10:] for i in (0, 1)] == ["000000.png", "000002.png"]


def test_label_maps_without_photos(paint, room, state, tmp_path):
    arch, _ = paint.architecture_of(flags_of(paint), state, room)
    maps = tmp_path / "toy" / "val_inst"
    with pytest.raises(UserError, match="--instance_dir is missing: the generator sees the edges"):
        paint.open_maps(flags_of(paint, "--input", maps), state, room, arch)
    words = ["--input", maps, "--instance_dir", tmp_path / "toy" / "val_instance"]
    data, _ = paint.open_maps(flags_of(paint, *words), state, room, arch)
    pairs, _ = paint.open_maps(flags_of(paint), state, room, arch)
    for i in range(3):
        for ours, theirs in zip(data.load(i)[:2], pairs.load(i)[:2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert (data.load(i)[2] == -1).all() and data.name(i).endswith(f"val_inst/00000{i}.png")
    words = ["--input", maps / "000001.png", "--instance_dir", tmp_path]
    with pytest.raises(UserError, match="--instance_dir: no file .*000001.png"):
        paint.open_maps(flags_of(paint, *words), state, room, arch)


def test_larger_pictures_are_told_to_look_washed_out(paint, room, state):
    args = flags_of(paint, "--crop_width", 64, "--crop_height", 32)
    arch, (note,) = paint.architecture_of(args, state, room)
    assert arch.start == (1, 2) and "64x32 px; the generator knows 32x32" in note
    assert "washed out" in note
    with pytest.raises(UserError, match="--crop_width 40: .* makes multiples of 32; take 32"):
        paint.architecture_of(flags_of(paint, "--crop_width", 40), state, room)
    state["architecture"]["use_vae"] = True
    with pytest.raises(UserError, match="a generator with a latent has one size only"):
        paint.architecture_of(args, state, room)


def test_zero_is_unknown_in_published_weights_of_ade20k(paint, room, state):
    del state["zero_is_unknown"]
    arch, _ = paint.architecture_of(flags_of(paint), state, room)
    assert not paint.open_maps(flags_of(paint), state, room, arch)[0].zero_is_unknown
    words = flags_of(paint, "--zero_is_unknown")
    assert paint.open_maps(words, state, room, arch)[0].zero_is_unknown
    arch = room.Architecture(**room.PRESETS["ade20k"])
    assert paint.open_maps(flags_of(paint), state, room, arch)[0].zero_is_unknown


# ---- what is drawn and measured ----


def test_a_pictures_latent_goes_by_its_place_alone(paint, room):
    arch = room.Architecture(label_nc=3, use_vae=True, z_dim=4, crop_width=32, crop_height=32)
    drawn = []

    class Generator(paddle.nn.Layer):
        def forward(self, seg, z):
            drawn.append(z.numpy())
            return paddle.zeros([len(z), 3, 32, 32])

    painter = paint.Painter(Generator(), room.semantics, arch, seed=1)
    maps = RNG(0).integers(0, 3, (2, 3, 32, 32))
    painter.paint(*maps, range(3))
    painter.paint(*maps[:, 1:2], [1])
    np.testing.assert_array_equal(drawn[0][1], drawn[1][0])
    assert (drawn[0][0] != drawn[0][1]).any()


def test_l1_and_miou_by_hand(paint, room, monkeypatch):
    from shared_metrics.judges import segmenter

    class Bright:
        """Sees class 1 where a pixel is bright."""

        num_classes = 2
        info = {"file": "toy"}

        def predict(self, images):
            return (images[..., 0] > 100).astype(np.int64)

    monkeypatch.setattr(segmenter, "load_segmenter", lambda *args: Bright())
    args = flags_of(paint, "--segmenter", "f")
    measures = paint.Measures(args, ["l1", "miou"], room.Architecture(label_nc=2))
    labels = np.array([[[0, 0, 1, 1]]])
    images = np.zeros((1, 1, 4, 3), np.uint8)
    images[0, 0, 1:] = 204  # seen: 0 1 1 1
    measures.update(labels, images, np.zeros_like(images))
    result = measures.result()
    assert result["scores"]["l1"] == pytest.approx(0.8 * 3 / 4)
    assert result["scores"]["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result["scores"]["pixel_accuracy"] == pytest.approx(3 / 4)
    assert result["segmenter"] == {"file": "toy"}
    with pytest.raises(UserError, match="--segmenter f: knows 2 classes, the maps have 3"):
        paint.Measures(args, ["miou"], room.Architecture(label_nc=3))
    with pytest.raises(UserError, match="--metrics miou: needs --segmenter"):
        paint.Measures(flags_of(paint), ["miou"], room.Architecture(label_nc=2))


def test_one_known_class_has_no_miou_but_a_note(paint, room, monkeypatch):
    from shared_metrics.judges import segmenter

    class Blind:
        num_classes = 2
        info = {"file": "toy"}

        def predict(self, images):
            return np.zeros(images.shape[:3], np.int64)

    monkeypatch.setattr(segmenter, "load_segmenter", lambda *args: Blind())
    args = flags_of(paint, "--segmenter", "f")
    measures = paint.Measures(args, ["miou"], room.Architecture(label_nc=2))
    measures.update(np.array([[[0, 0, 2, 2]]]), np.zeros((1, 1, 4, 3), np.uint8), None)
    result = measures.result()
    assert result["scores"] == {} and "only class 0 occurs" in result["notes"][0]


def test_the_whole_way(paint, room, state, tmp_path):
    if not (ROOT / "shared_metrics" / "testing.py").is_file():
        pytest.skip("needs shared_metrics/testing.py")
    from shared_metrics import testing

    parser = argparse.ArgumentParser(allow_abbrev=False)
    paint.add_flags(parser)
    words = ["--pretrained_model", tmp_path / "file.pdparams", "--output_dir", tmp_path / "out"]
    args = testing.parse(parser, [*words, "--metrics", "l1", "--batch_size", "2"])
    output, record, own = paint.run(args, state, room)
    output.finish(record | {"paper": "spade", "published": []}, own)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 < record["scores"]["l1"] < 1 and record["samples"]["number"] == 3
    names = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    expected = [f"{kind}_00000{i}.png" for kind in ("fakeB", "real") for i in range(3)]
    assert names == expected
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.width == 2 + 3 * 34 and grid.height > 2 + 3 * 34
