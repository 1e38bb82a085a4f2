"""Photos and label maps -> arrays: which pixels, which ids, and what is said of files that do not
fit.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from scripts import make_toy_data
from shared_metrics.errors import UserError
from tests.conftest import run_cli, shared_dir


@pytest.fixture
def dataset(paper):
    return paper("gaugan_simam").dataset


def save(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **how)
    return path


def columns(width, height):
    """Column numbers as uint8 (height, width)."""
    return np.tile(np.arange(width, dtype=np.uint8), (height, 1))


def add_pair(root, name="0", width=40, height=30, labels=None, photo=None, split="train"):
    """A photo whose red channel is the column number, and a map with the ids of `labels` (default:
    also columns).
    """
    cols = columns(width, height)
    save(root / f"{split}_img" / f"{name}.png", np.stack([cols] * 3, 2) if photo is None else photo)
    save(root / f"{split}_inst" / f"{name}.png", cols if labels is None else labels)
    return root


def rng(seed=0):
    return np.random.default_rng(seed)


def reds(photo):
    return (photo[0] + 1) * 127.5


def test_pairs_by_stem_whatever_the_format(dataset, tmp_path):
    photo = np.zeros((8, 8, 3), np.uint8)
    for name in ("a.JPEG", "b.jpg", "c.PNG", "d.e.webp"):
        save(tmp_path / "train_img" / name, photo)
    for name in ("a.png", "b.TIF", "c.bmp", "d.e.PNG"):
        save(tmp_path / "train_inst" / name, photo[:, :, 0])
    for name in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (tmp_path / "train_img" / name).write_bytes(b"x")
        (tmp_path / "train_inst" / name).write_bytes(b"x")
    data = dataset.PairFolder(tmp_path, crop_size=8)
    assert [(p.name, m.name, i) for p, m, i in data.items] == [
        ("a.JPEG", "a.png", None),
        ("b.jpg", "b.TIF", None),
        ("c.PNG", "c.bmp", None),
        ("d.e.webp", "d.e.PNG", None),
    ]
    assert data.name(1).endswith("b.jpg") and data.load(0, rng())[2].min() == -1


def test_partners_that_are_missing_or_double_are_named(dataset, tmp_path):
    add_pair(tmp_path, "a")
    lonely = save(tmp_path / "train_img" / "b.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"b\.jpg: no label map .*train_inst/b\.png; add it or remove"
    ):
        dataset.PairFolder(tmp_path, crop_size=8)
    lonely.unlink()
    save(tmp_path / "train_inst" / "c.png", columns(8, 8))
    save(tmp_path / "train_inst" / "d.png", columns(8, 8))
    with pytest.raises(UserError, match=r"c\.png: no photo .*train_img/c\.\*; .*\(1 more"):
        dataset.PairFolder(tmp_path, crop_size=8)
    save(tmp_path / "train_img" / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png: a\.jpg bears the same name"):
        dataset.PairFolder(tmp_path, crop_size=8)


def test_missing_folders_say_what_is_expected(dataset, tmp_path):
    for wrong, message in [
        ({}, "--data_path is missing"),
        ({"root": tmp_path / "nowhere"}, r"--data_path .*nowhere: no such folder"),
        (
            {"root": tmp_path},
            r"no folder train_img in it. Expected train_img with photos and train_inst",
        ),
        ({"image_dir": tmp_path}, "--data_path is missing.*--label_dir"),
        (
            {"image_dir": tmp_path, "label_dir": tmp_path / "no"},
            r"--label_dir .*no: no such folder",
        ),
        ({"root": tmp_path, "label_dir": tmp_path}, "give either"),
        ({"root": tmp_path, "instance_dir": tmp_path}, "give either"),
    ]:
        with pytest.raises(UserError, match=message):
            dataset.PairFolder(**wrong)
    (tmp_path / "train_img").mkdir()
    (tmp_path / "train_inst").mkdir()
    with pytest.raises(UserError, match=r"train_img: no images in this folder"):
        dataset.PairFolder(tmp_path)


def test_photo_and_map_are_cut_at_one_place_and_flipped_alike(dataset, tmp_path):
    add_pair(tmp_path, width=40, height=30)
    data = dataset.PairFolder(tmp_path, label_nc=40, load_size=30, crop_size=20, flip=True)
    starts, flips, tops = [], [], []
    for seed in range(200):
        labels, instances, photo = data.load(0, rng(seed))
        assert labels.dtype == instances.dtype == np.int64 and photo.dtype == np.float32
        assert labels.shape == (20, 20) and photo.shape == (3, 20, 20)
        assert np.allclose(reds(photo), labels, atol=1e-3) and np.array_equal(labels, instances)
        flips.append(labels[0, 0] > labels[0, 1])
        starts.append(labels[0].min())
    assert 70 < sum(flips) < 130 and min(starts) == 0 and max(starts) == 20
    add_pair(
        tmp_path, "rows", 40, 30, columns(30, 40).T.copy(), np.stack([columns(30, 40).T] * 3, 2)
    )
    data = dataset.PairFolder(tmp_path, label_nc=40, load_size=30, crop_size=20)
    tops = {int(data.load(1, rng(seed))[0][0, 0]) for seed in range(200)}
    assert tops == set(range(11))
    again = data.load(0, rng(7)), data.load(0, rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(*again, strict=True))


def test_shorter_side_becomes_load_size_and_maps_keep_their_ids(dataset, tmp_path):
    halves = np.where(columns(80, 40) < 40, 3, 9).astype(np.uint8)
    add_pair(tmp_path, width=80, height=40, labels=halves, photo=np.stack([halves * 10] * 3, 2))
    data = dataset.PairFolder(tmp_path, label_nc=12, load_size=20, crop_size=20)
    seen = set()
    for seed in range(30):
        labels, _, photo = data.load(0, rng(seed))
        seen |= set(np.unique(labels).tolist())
        inner = np.abs(reds(photo) - labels * 10) < 1
        assert inner.mean() > 0.75  # bicubic: all but the columns at the border of the halves
    assert seen == {3, 9}


@pytest.mark.parametrize(
    "mode, train_size, test_size",
    [
        ("scale_shortside_and_crop", (30, 60), (20, 40)),
        ("resize_and_crop", (30, 30), (20, 20)),
        ("scale_width_and_crop", None, None),
        ("fixed", (20, 20), (20, 20)),
    ],
)
def test_sizes_before_the_crop(dataset, tmp_path, mode, train_size, test_size):
    add_pair(tmp_path, width=80, height=40)
    data = dataset.PairFolder(tmp_path, label_nc=80, load_size=30, crop_size=20, preprocess=mode)
    if train_size is None:
        with pytest.raises(UserError, match=r"80x40 px become 30x15 .*lower than the crop \(20\)"):
            data.load(0, rng())
        data = dataset.PairFolder(
            tmp_path, label_nc=80, load_size=50, crop_size=20, preprocess=mode
        )
        train_size = test_size = (25, 50)
    assert data._resized("", 80, 40) == train_size[::-1]
    assert data.for_testing()._resized("", 80, 40) == test_size[::-1]
    assert data.load(0, rng())[0].shape == (20, 20)


def test_items_of_another_aspect_ratio(dataset, tmp_path):
    add_pair(tmp_path, width=40, height=40)
    data = dataset.PairFolder(tmp_path, label_nc=40, load_size=36, crop_size=32, height=16)
    labels, _, photo = data.load(0, rng())
    assert (
        labels.shape == (16, 32)
        and photo.shape == (3, 16, 32)
        and data._resized("", 40, 40) == (36, 36)
    )
    tall = dataset.PairFolder(tmp_path, label_nc=40, load_size=36, crop_size=32, height=64)
    assert tall._resized("", 40, 40) == (72, 72) and tall.load(0, rng())[0].shape == (64, 32)


def test_testing_takes_the_middle_and_never_flips(dataset, tmp_path):
    add_pair(tmp_path, width=40, height=20)
    data = dataset.PairFolder(
        tmp_path, label_nc=40, load_size=24, crop_size=20, flip=True, train=False
    )
    labels, _, photo = data.load(0)
    assert labels[0].tolist() == list(range(10, 30)) and np.allclose(reds(photo), labels, atol=1e-3)
    training = dataset.PairFolder(tmp_path, label_nc=40, load_size=24, crop_size=20, flip=True)
    (batch,) = training.pictures()
    assert (
        batch.dtype == np.uint8
        and batch.shape == (1, 20, 20, 3)
        and batch[0, 0, :, 0].tolist() == labels[0].tolist()
    )
    assert training.train and np.array_equal(training.for_testing().load(0)[0], labels)


def test_unreadable_pairs_are_left_out_of_scores_when_asked(dataset, tmp_path):
    """Whichever of the two files it is."""
    for i in range(4):
        add_pair(tmp_path, str(i), 20, 20, photo=np.full((20, 20, 3), 10 * i, np.uint8))
    (tmp_path / "train_img" / "1.png").write_bytes(b"no picture")
    (tmp_path / "train_inst" / "2.png").write_bytes(b"no map")
    data = dataset.PairFolder(tmp_path, label_nc=20, crop_size=20)
    with pytest.raises(UserError, match=r"train_img.1\.png"):
        list(data.pictures())
    (batch,) = data.pictures(skip_bad=True)
    assert batch[:, 0, 0, 0].tolist() == [0, 30]


def test_default_load_size_is_the_published_share(dataset, tmp_path):
    add_pair(tmp_path)
    assert dataset.PairFolder(tmp_path, crop_size=256).load_size == 286
    assert dataset.PairFolder(tmp_path, crop_size=128).load_size == 143
    with pytest.raises(UserError, match="--load_size 100: smaller than --crop_size 128"):
        dataset.PairFolder(tmp_path, crop_size=128, load_size=100)


def test_ids_of_every_kind_of_map(dataset, tmp_path):
    ids = np.array([[0, 1], [2, 3]], np.uint8)
    palette = Image.fromarray(ids, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    kinds = {
        "grey8.png": save(tmp_path / "grey8.png", ids),
        "grey16.png": save(tmp_path / "grey16.png", ids.astype(np.uint16) * 1000),
        "palette.png": save(tmp_path / "palette.png", palette, transparency=1),
        "palette1.png": save(tmp_path / "palette1.png", Image.fromarray(ids % 2, "P"), bits=1),
        "bits.png": save(tmp_path / "bits.png", Image.fromarray(ids > 1)),
        "tiff32.tif": save(tmp_path / "tiff32.tif", ids.astype(np.int32) * 100_000),
    }
    found = {name: dataset.read_ids(path) for name, path in kinds.items()}
    assert all(a.dtype == np.int64 and a.shape == (2, 2) for a in found.values())
    for name, factor in {
        "grey8.png": 1,
        "grey16.png": 1000,
        "palette.png": 1,
        "tiff32.tif": 100_000,
    }.items():
        assert np.array_equal(found[name], ids.astype(np.int64) * factor), name
    assert np.array_equal(found["palette1.png"], ids % 2) and found["bits.png"].tolist() == [
        [0, 0],
        [1, 1],
    ]


def test_grey_of_four_and_two_bits_is_not_stretched(dataset, tmp_path):
    """Pillow gives 0, 17, 34, ... for a 4-bit PNG; it cannot write one, so the file is put together
    here.
    """
    import struct
    import zlib

    def png(depth, packed):
        def chunk(name, body):
            return (
                struct.pack(">I", len(body))
                + name
                + body
                + struct.pack(">I", zlib.crc32(name + body))
            )

        header = struct.pack(">IIBBBBB", 4, 1, depth, 0, 0, 0, 0)
        pixels = zlib.compress(b"\0" + packed)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", pixels)
            + chunk(b"IEND", b"")
        )

    (tmp_path / "four.png").write_bytes(png(4, bytes([0x01, 0x5F])))
    (tmp_path / "two.png").write_bytes(png(2, bytes([0b00011011])))
    assert dataset.read_ids(tmp_path / "four.png").tolist() == [[0, 1, 5, 15]]
    assert dataset.read_ids(tmp_path / "two.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "F"])
def test_colour_masks_are_refused(dataset, tmp_path, mode):
    path = save(
        tmp_path / f"m.{'tif' if mode in ('CMYK', 'F') else 'png'}", Image.new(mode, (4, 4))
    )
    with pytest.raises(
        UserError, match=rf"m\.\w+: a map of mode {mode}, but ids need one whole number a pixel"
    ):
        dataset.read_ids(path)


def test_jpegs_and_damaged_maps_are_refused(dataset, tmp_path):
    with pytest.raises(UserError, match=r"m\.jpg: a JPEG is no map"):
        dataset.read_ids(save(tmp_path / "m.jpg", columns(8, 8)))
    path = save(tmp_path / "m.png", rng().integers(0, 99, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"m\.png: not a readable map"):
        dataset.read_ids(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"m\.png: not a readable map"):
        dataset.read_ids(path)
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        dataset.read_ids(tmp_path / "none.png")


def test_unknown_and_ids_out_of_range(dataset, tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 11, 12, 255]], np.uint8))
    assert dataset.read_label(path, 12).tolist() == [[0, 11, 12, 12]]
    with pytest.raises(
        UserError,
        match=r"m\.png: id 12 is out of range \(50\.0% .*: label_nc 12 allows 0 to 11\. Repair",
    ):
        dataset.read_label(path, 12, contain_dontcare_label=False)
    with pytest.raises(
        UserError, match=r"m\.png: id 11 is out of range .*0 to 9 and 10 or 255 for unknown"
    ):
        dataset.read_label(path, 10)
    many = save(tmp_path / "n.png", np.array([[255, 256, 300]], np.uint16))
    assert dataset.read_label(many, 300).tolist() == [
        [255, 256, 300]
    ]  # 255 is a class of its own here
    with pytest.raises(UserError, match=r"n\.png: id 256 "):
        dataset.read_label(many, 255)


def test_a_bad_map_is_named_when_loaded(dataset, tmp_path):
    add_pair(tmp_path, labels=np.full((30, 40), 99, np.uint8))
    with pytest.raises(UserError, match=r"train_inst/0\.png: id 99 "):
        dataset.PairFolder(tmp_path, crop_size=8).load(0, rng())
    add_pair(tmp_path, labels=np.zeros((20, 40), np.uint8))
    with pytest.raises(
        UserError, match=r"train_inst/0\.png: 40x20 px, but its photo .*train_img/0\.png has 40x30"
    ):
        dataset.PairFolder(tmp_path, crop_size=8).load(0, rng())


def test_separate_folders_and_instances(dataset, tmp_path):
    cols = columns(16, 16)
    save(tmp_path / "photos" / "x" / "1.jpg", np.zeros((16, 16, 3), np.uint8))
    save(tmp_path / "labels" / "x" / "1.png", cols // 8)
    save(tmp_path / "things" / "x" / "1.png", cols.astype(np.uint16) * 300)
    folders = {
        "image_dir": tmp_path / "photos",
        "label_dir": tmp_path / "labels",
        "instance_dir": tmp_path / "things",
    }
    data = dataset.PairFolder(**folders, label_nc=2, load_size=16, crop_size=16, train=False)
    labels, instances, _ = data.load(0)
    assert np.array_equal(labels, cols // 8) and np.array_equal(
        instances, cols.astype(np.int64) * 300
    )
    assert "labels of labels, instances of things" in dataset.describe(data)
    save(tmp_path / "photos" / "2.jpg", np.zeros((16, 16, 3), np.uint8))
    save(tmp_path / "labels" / "2.png", cols // 8)
    with pytest.raises(UserError, match=r"2\.jpg: no instance map .*things/2\.png"):
        dataset.PairFolder(**folders)


def test_a_label_folder_beside_the_instances_gives_the_classes(dataset, tmp_path):
    """NVlabs' COCO layout: train_inst numbers the things."""
    add_pair(tmp_path, labels=columns(40, 30) + 100)
    save(tmp_path / "train_label" / "0.png", columns(40, 30) // 20)
    labels, instances, _ = dataset.PairFolder(
        tmp_path, label_nc=2, load_size=30, crop_size=30, train=False
    ).load(0)
    assert set(np.unique(labels)) == {0, 1} and instances.min() >= 100
    save(tmp_path / "train_instance" / "0.png", columns(40, 30) + 50)
    labels, instances, _ = dataset.PairFolder(
        tmp_path, label_nc=2, load_size=30, crop_size=30, train=False
    ).load(0)
    assert set(np.unique(labels)) == {0, 1} and instances.min() == 55


def test_toy_data_has_classes_and_instances_of_its_own(dataset, tmp_path):
    root = make_toy_data.make(tmp_path / "toy", "coco_stuff", classes=1, count=9, size=32)
    data = dataset.PairFolder(
        root, label_nc=4, contain_dontcare_label=False, crop_size=32, train=False
    )
    pairs = [
        (label, number)
        for i in range(9)
        for label, number in zip(*map(np.ravel, data.load(i)[:2]), strict=True)
    ]
    assert {label for label, _ in pairs} == {0, 1, 2, 3} and {
        n for label, n in pairs if label == 3
    } >= {1, 2}
    assert {n for label, n in pairs if label < 3} == {0}


def test_validation_folders_may_be_called_test(dataset, tmp_path):
    add_pair(tmp_path, "t", split="test")
    assert dataset.PairFolder(tmp_path, split="val").name(0).endswith("test_img/t.png")
    add_pair(tmp_path, "v", split="val")
    assert dataset.PairFolder(tmp_path, split="val").name(0).endswith("val_img/v.png")


def test_flags_become_a_data_set(dataset, tmp_path):
    add_pair(tmp_path)
    arch = SimpleNamespace(
        size=(16, 32), no_instance=True, label_nc=40, contain_dontcare_label=False
    )
    folders = {"data_path": tmp_path, "image_dir": "", "label_dir": "", "instance_dir": "unread"}
    args = SimpleNamespace(**folders, load_size=0, flip=True, preprocess_mode="fixed")
    data = dataset.make_dataset(args, arch)
    assert (
        data.load(0, rng())[0].shape == (16, 32)
        and data.train
        and data.flip
        and not data.contain_dontcare_label
    )
    told = dataset.describe(data)
    assert (
        "1 pairs" in told
        and "32x16 px by fixed and flip, 40 classes" in told
        and "unknown" not in told
    )


def test_checker_lists_ids_sizes_and_every_problem(tmp_path):
    root = make_toy_data.make(
        tmp_path / "toy", "coco_stuff", classes=2, count=3, val_count=1, size=16
    )
    fine = run_cli("gaugan_simam", "dataset.py", root, "--label_nc", 5).stdout
    assert (
        "3 pairs" in fine
        and "1 pairs" in fine
        and "16x16 (3)" in fine
        and "no problems found" in fine
    )
    assert "--label_nc 5 at least" in fine and "255 never occurs" in fine
    labels = np.zeros((16, 16), np.uint8)
    labels[0, :8], labels[1, :8] = 9, 255
    save(root / "train_inst" / "000000.png", labels)
    save(root / "train_inst" / "000001.png", np.zeros((8, 16), np.uint8))
    (root / "train_inst" / "000002.png").unlink()
    (root / "val_img" / "000000.png").write_bytes(b"not a picture")
    found = run_cli("gaugan_simam", "dataset.py", root, "--label_nc", 5, code=2).stdout
    problems = [line for line in found.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 4
    for words in ("000002.png: no label map", "train_inst/000000.png: id 9 out of range: label_nc "
                                              "5 allows 0 to 4",
                  "000001.png: 16x8 px", "val_img/000000.png: not a readable image"):  # fmt: skip
        assert any(words in line for line in problems), words
    table = [line.split() for line in found.splitlines()]
    assert ["9", "2.08%", "1"] in table and [
        "255",
        "2.08%",
        "1",
    ] in table  # 8 of 2 * 16 * 8 + ... = 384 pixels
    assert "--label_nc 10 at least" in found and "255 (unknown) occurs" in found


def test_checker_knows_black_and_white_masks(dataset):
    assert "black-and-white mask" in dataset.advice({0: 5, 255: 5})
    assert dataset.advice({0: 5, 300: 1}).startswith("--label_nc 301 ")
    assert "only 255" in dataset.advice({255: 5})


def test_checker_on_coco_stuff(dataset, capsys):
    """The real files: thing ids 0-90, stuff 91-181, 255; instance maps beside the labels."""
    root = shared_dir("data/coco_stuff")
    assert dataset.main([str(root), "--label_nc", "182"]) is None
    told = capsys.readouterr().out
    assert (
        "13 pairs" in told
        and "8 pairs" in told
        and "no problems found" in told
        and "train_label" in told
    )
    data = dataset.PairFolder(root, label_nc=182, crop_size=64)
    labels, instances, photo = data.load(0, rng())
    assert labels.max() <= 182 and not np.array_equal(labels, instances) and photo.std() > 0.1
