"""Editing faces: what G is told, labels of own photos, sheets and sliders, what is measured, the
whole way of test.py.
"""

import argparse
import json

import numpy as np
import paddle
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics.errors import UserError
from tests.classic_gans import face_rooms as rooms
from tests.conftest import ROOT

RNG = np.random.default_rng
NAMES = ["Black_Hair", "Blond_Hair", "Smiling"]


@pytest.fixture(params=["stargan", "attgan", "stgan"])
def room(paper, request):
    """The trainer module of a room."""
    return rooms.load(paper, request.param)[1]


@pytest.fixture
def attgan(paper):
    return rooms.load(paper, "attgan")[1]


@pytest.fixture
def edit(room):
    import edit

    return edit


class Spy(paddle.nn.Layer):
    """A generator that gives back the faces and keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.conditions = []

    def forward(self, x, condition):
        assert not self.training
        self.conditions.append(condition.numpy())
        return x


def make_editor(room, **changes):
    import editing

    about = {"selected_attrs": NAMES, "exclusive": [["Black_Hair", "Blond_Hair"]], "choices": []}
    about |= {"first": 0, "thres_int": room.PUBLISHED["thres_int"]} | changes
    return editing.Editor(Spy(), room.condition, about)


def name_of(room):
    return room.__name__.split(".")[0]


X = np.zeros((2, 3, 16, 16), np.float32)
LABELS = np.float32([[1, 0, 0], [0, 1, 1]])


# ---- flags ----


def flags_of(edit, *words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    edit.edit_flags(parser)
    return parser.parse_args([*words])


def test_intensities_and_values_on_the_command_line(edit):
    args = flags_of(edit, "--attr_int", "-1..1", "--set", "Male=1,Young=0")
    assert args.attr_int == (-1.0, 1.0) and args.set == {"Male": 1, "Young": 0}
    assert flags_of(edit).attr_int == (1.0, 1.0) and flags_of(edit).set == {}
    assert flags_of(edit, "--attr_int", "-0.5").attr_int == (-0.5, -0.5)
    for words in (["--attr_int", "strong"], ["--set", "Male"], ["--set", "Male=2"]):
        with pytest.raises(SystemExit):
            flags_of(edit, *words)
    with pytest.raises(argparse.ArgumentTypeError, match="each attribute once"):
        edit.settings("Male=1,Male=0")


# ---- what G is told ----


def test_set_changes_several_attributes_and_what_they_exclude(room):
    """Intensities: what was asked for and changes 1, all others thres_int."""
    editor = make_editor(room)
    editor.draw_values(X, LABELS, {"Blond_Hair": 1, "Smiling": 1})
    (condition,) = editor.generator.conditions
    k = room.PUBLISHED["thres_int"]
    source = np.float32([[k, -k, -k], [-k, k, k]])
    target = np.float32([[-k, 1, 1], [-k, k, k]])  # the second face has both already
    if name_of(room) == "stargan":
        np.testing.assert_array_equal(condition, [[0, 1, 1], [0, 1, 1]])
    else:
        expected = target - source if name_of(room) == "stgan" else target
        np.testing.assert_allclose(condition, expected)


def test_a_slider_moves_one_attribute_and_turns_the_sign_of_what_is_to_lack(room):
    editor = make_editor(room)
    picture = editor.slide(X, LABELS, {"Smiling": 1, "Black_Hair": 0}, [-1.0, 0.0, 0.5])
    assert picture.shape[1] > 4 * 16 and len(editor.generator.conditions) == 3
    k = room.PUBLISHED["thres_int"]
    source = np.float32([[k, -k, -k], [-k, k, k]])
    for point, condition in zip((-1.0, 0.0, 0.5), editor.generator.conditions, strict=True):
        # Black_Hair, switched on below 0 (and at 0), excludes Blond_Hair.
        blond = np.float32([-k, k if point > 0 else -k])
        target = np.stack([np.full(2, -point), blond, np.full(2, point)], 1)
        expected = {"stargan": (target + 1) / 2, "attgan": target, "stgan": target - source}
        np.testing.assert_allclose(condition, expected[name_of(room)], atol=1e-6)


def test_faces_drawn_with_their_own_attributes(room):
    editor = make_editor(room)
    editor.draw(X, LABELS, LABELS)
    (condition,) = editor.generator.conditions
    expected = {"stargan": LABELS, "attgan": LABELS - 0.5, "stgan": 0 * LABELS}
    np.testing.assert_array_equal(condition, expected[name_of(room)])


def test_fakes_have_the_labels_of_other_faces(attgan):
    editor = make_editor(attgan)
    data = rooms.Faces(6, NAMES)
    drawn = [list(editor.fakes(data, 5, 2, seed)) for seed in (3, 3, 4)]
    assert [len(batch) for batch in drawn[0]] == [2, 2, 1]
    first, again, other = (
        np.concatenate(editor.generator.conditions[i : i + 3]) for i in (0, 3, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != data.labels[:5] - 0.5).any()
    rows = {tuple(row) for row in data.labels - 0.5}
    assert {tuple(row) for row in first} <= rows


# ---- what the file tells ----


def test_published_weights_take_the_rooms_defaults(room, edit):
    state = {"architecture": {"c_dim": 3}, "source": {"selected_attrs": NAMES}}
    about = edit.about_of(state, room)
    assert about["selected_attrs"] == NAMES and about["first"] == 0
    assert about["exclusive"] == [["Black_Hair", "Blond_Hair"]]
    star = name_of(room) == "stargan"
    assert about["choices"] == ([["Black_Hair", "Blond_Hair"]] if star else [])
    assert about["thres_int"] == (1.0 if star else 0.5)
    own = state | {"selected_attrs": NAMES[::-1], "exclusive": [], "thres_int": 0.3}
    about = edit.about_of(own, room)
    assert (about["selected_attrs"], about["exclusive"], about["thres_int"]) == (
        NAMES[::-1],
        [],
        0.3,
    )


def test_attributes_whose_names_are_not_known_must_be_named(attgan, paper):
    import edit

    state = {"architecture": {"c_dim": 3}, "source": {"selected_attrs": []}}
    with pytest.raises(UserError, match="of 3 attributes and does not tell their names"):
        edit.about_of(state, attgan)
    about = edit.about_of(state, attgan, ",".join(NAMES))
    assert about["selected_attrs"] == NAMES
    state["selected_attrs"] = NAMES
    with pytest.raises(UserError, match="--selected_attrs A,B,C: the file's are Black_Hair"):
        edit.about_of(state, attgan, "A,B,C")


def test_faces_of_a_network_for_two_data_sets_are_in_the_first(paper):
    room = rooms.load(paper, "stargan")[1]
    import edit

    about = {"selected_attrs": [*NAMES, "sad", "happy"], "first": 3, "exclusive": [], "choices": []}
    data = rooms.Faces(2, NAMES)
    data.name = "face{}.png".format
    subjects = edit.Subjects(data, data.labels, about)
    np.testing.assert_array_equal(subjects.labels[:, :3], data.labels)
    np.testing.assert_array_equal(subjects.labels[:, 3:], [[0, 0, 1, 0]] * 2)
    editor = make_editor(room, **about)
    editor.draw_values(X, subjects.labels, {"happy": 1})
    np.testing.assert_array_equal(editor.generator.conditions[0], [[0, 0, 0, 0, 1, 0, 1]] * 2)


# ---- own photos ----


class Judge:
    """Sees an attribute in each face: the k-th where channel k is bright."""

    classes = ["Smiling", "Male", "Blond_Hair", "Black_Hair"]
    info = {"judge": "toy"}

    def predict(self, images):
        bright = images.mean((1, 2)) / 255  # (N, 3)
        return np.stack([bright[:, 2], bright[:, 0] * 0, bright[:, 1], bright[:, 0]], 1)


@pytest.fixture
def photos(attgan, tmp_path):
    """Two photos: the first red (Black_Hair to the judge), the second green and blue."""
    import faces

    for name, colour in (("a.png", (255, 0, 0)), ("b.jpg", (0, 255, 255))):
        (tmp_path / "me").mkdir(exist_ok=True)
        Image.new("RGB", (178, 218), colour).save(tmp_path / "me" / name)
    return faces.Photos(tmp_path / "me", image_size=16, crop_size=170)


def test_attributes_of_photos_by_name_by_list_and_guessed(attgan, photos, tmp_path):
    import edit

    labels, notes = edit.photo_labels("Smiling,Black_Hair", photos, NAMES, None)
    np.testing.assert_array_equal(labels, [[1, 0, 1], [1, 0, 1]])
    labels, _ = edit.photo_labels("none", photos, NAMES, None)
    np.testing.assert_array_equal(labels, np.zeros((2, 3)))
    table = tmp_path / "list.txt"
    table.write_text(
        "3\nSmiling Blond_Hair Bald Black_Hair\nb.jpg 1 -1 1 -1\nx.jpg 1 1 1 1\na.jpg -1 -1 1 1\n"
    )
    labels, notes = edit.photo_labels(str(table), photos, NAMES, None)
    np.testing.assert_array_equal(labels, [[1, 0, 0], [0, 0, 1]])
    assert notes == []
    labels, notes = edit.photo_labels("", photos, NAMES, Judge())
    np.testing.assert_array_equal(labels, [[1, 0, 0], [0, 1, 1]])
    assert notes[0].endswith("a.png: guessed Black_Hair")
    assert notes[1].endswith("b.jpg: guessed Blond_Hair, Smiling")


def test_attributes_of_photos_that_are_not_known(attgan, photos, tmp_path):
    import edit

    with pytest.raises(UserError, match="--attrs is missing: G must be told"):
        edit.photo_labels("", photos, NAMES, None)
    with pytest.raises(UserError, match="--attrs Smile: .* did you mean Smiling"):
        edit.photo_labels("Smile", photos, NAMES, None)
    (tmp_path / "list.txt").write_text("1\nSmiling Blond_Hair Black_Hair\na.jpg 1 -1 1\n")
    with pytest.raises(UserError, match="list.txt: has no line for .*b.jpg"):
        edit.photo_labels(str(tmp_path / "list.txt"), photos, NAMES, None)
    (tmp_path / "list.txt").write_text("1\nSmiling\na.jpg 1\n")
    with pytest.raises(UserError, match="--attrs Black_Hair: .*list.txt has no such attribute"):
        edit.photo_labels(str(tmp_path / "list.txt"), photos, NAMES, None)


def test_no_two_faces_are_drawn_under_one_name(attgan):
    import naming

    assert naming.file_names(["/d/a/1.jpg", "/d/b/1.png"]) == ["a_1", "b_1"]
    assert naming.file_names(["/d/a/1.jpg"]) == ["1"]
    with pytest.raises(UserError, match="would both be drawn as 1; rename one"):
        naming.file_names(["/d/1.jpg", "/d/1.png"])


# ---- what is measured ----


def test_accuracy_and_preservation_by_hand(attgan):
    """Four faces, two attributes; the first is edited."""
    import face_measures

    judge = Judge()
    judge.predict = lambda images: images[:, 0, 0, :2].astype(float)
    judge.classes = ["B", "A"]
    measures = face_measures.Measures(["accuracy", "preservation"], ["A", "B"], judge)
    labels = np.float32([[0, 0], [0, 1], [0, 1], [1, 0]])
    target = np.float32([[1, 0], [1, 1], [1, 0], [1, 0]])  # the third loses B, the last had A
    drawn = np.zeros((4, 8, 8, 3), np.uint8)
    drawn[:, 0, 0, 1] = [1, 0, 1, 0]  # A seen in faces 0 and 2
    drawn[:, 0, 0, 0] = [0, 0, 0, 1]  # B seen in face 3
    empty = measures.result()
    assert empty["scores"] == {} and "no accuracy: none of these faces" in empty["notes"][0]
    measures.edited(0, drawn, labels, target)
    result = measures.result()
    assert result["notes"] == []
    # Of the three changed, two are seen; of B, kept in faces 0, 1 and 3, one is seen as it is.
    assert result["scores"] == {
        "accuracy": pytest.approx(2 / 3),
        "preservation": pytest.approx(1 / 3),
    }
    assert result["per_class"].keys() == {"A"} and result["judge"] == {"judge": "toy"}
    measures.edited(1, np.zeros((1, 8, 8, 3), np.uint8), labels[1:2], np.float32([[0, 0]]), [0])
    scores = measures.result()["scores"]
    assert scores["accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["preservation"] == pytest.approx(1 / 3)  # beside a rival B has no others


def test_reconstruction_by_hand(attgan):
    pytest.importorskip("skimage", reason="PSNR and SSIM are scikit-image's")
    import face_measures

    faces = RNG(0).integers(0, 240, (2, 16, 16, 3), dtype=np.uint8)
    measures = face_measures.Measures(["psnr", "ssim"], ["A"])
    measures.reconstructed(faces, faces + np.uint8(4))
    scores = measures.result()["scores"]
    assert scores["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    assert 0.9 < scores["ssim"] < 1.0
    _, ssim = face_measures.differences(faces, faces[::-1])
    assert abs(ssim).max() < 0.2


def test_a_judge_must_know_the_attributes_and_be_there_where_it_is_needed(attgan, monkeypatch):
    import face_measures
    from shared_metrics.judges import attributes

    assert face_measures.open_judge("", NAMES, ["psnr"]) is None
    with pytest.raises(UserError, match="--metrics accuracy: needs --attribute_judge"):
        face_measures.open_judge("", NAMES, ["psnr", "accuracy"])
    monkeypatch.setattr(attributes, "load_attributes", lambda path: Judge())
    with pytest.raises(
        UserError, match="--attribute_judge f: does not know Bald; it knows Smiling"
    ):
        face_measures.open_judge("f", ["Smiling", "Bald"])


# ---- the whole way ----


@pytest.fixture
def checkpoint(room, tmp_path):
    """A file of a tiny run on toy faces, as convert.read_weights reads it."""
    from shared_metrics import weights

    toy.make(tmp_path / "faces", "celeba", count=12, val_count=5, size=24)
    words = "--image_size 16 --crop_size 20 --g_base_dims 4 --d_base_dims 4 --batch_size 4"
    words += " --split official --selected_attrs Smiling,Wearing_Hat --n_samples 2"
    if name_of(room) == "stargan":
        words += " --d_repeat_num 3 --g_repeat_num 1"
    else:
        words += " --n_layers 2 --d_fc_dim 4 --shortcut_layers 1 --inject_layers 1"
    words += " --gru_n_layers 1" if name_of(room) == "stgan" else ""
    where = ["--data_dir", tmp_path, "--dataset", "faces"]
    args = rooms.parse(room, tmp_path / "run", *words.split(), *where)
    state = rooms.state_of(room.Trainer(args))
    weights.save(state, tmp_path / "file.pdparams")
    return state


def run(edit, room, state, tmp_path, *words):
    if not (ROOT / "shared_metrics" / "testing.py").is_file():
        pytest.skip("needs shared_metrics/testing.py")
    from shared_metrics import testing

    parser = argparse.ArgumentParser(allow_abbrev=False)
    edit.add_flags(parser)
    words = ["--output_dir", tmp_path / "out", *words]
    args = testing.parse(parser, ["--pretrained_model", tmp_path / "file.pdparams", *words])
    output, record, own = edit.run(args, state, room)
    output.finish(record | {"paper": name_of(room), "published": []}, own)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    return sorted(path.name for path in (tmp_path / "out" / "images").iterdir()), record


def test_sheets_of_the_held_out_faces(edit, room, checkpoint, tmp_path):
    files, record = run(edit, room, checkpoint, tmp_path, "--batch_size", "3")
    assert files == ["fake_image_000013.png", "fake_image_000016.png"]
    assert record["samples"]["number"] == 5 and record["scores"] == {}
    rows = 5 if name_of(room) == "stargan" else 3  # original, two attributes and the changes undone
    with Image.open(tmp_path / "out" / "images" / files[0]) as sheet:
        assert sheet.height == 2 + rows * 18 and sheet.width > 3 * 18


@pytest.mark.parametrize("room", ["attgan", "stgan"], indirect=True)
def test_the_statistics_of_batchnorm_are_a_choice(edit, room, checkpoint, tmp_path):
    drawn = {}
    for mode in ("running", "batch"):
        run(edit, room, checkpoint, tmp_path, "--bn_stats", mode, "--overwrite")
        with Image.open(tmp_path / "out" / "images" / "fake_image_000013.png") as sheet:
            drawn[mode] = np.asarray(sheet)
    assert not np.array_equal(drawn["running"], drawn["batch"])


def test_set_slider_and_own_photos(edit, room, checkpoint, tmp_path):
    Image.new("RGB", (178, 218), (90, 60, 30)).save(tmp_path / "me.png")
    words = ["--input", tmp_path / "me.png", "--attrs", "none", "--set", "Smiling=1,Wearing_Hat=1"]
    files, record = run(edit, room, checkpoint, tmp_path, *words)
    assert files == ["edit_me.png", "fake_image_me.png"]
    assert any("CelebA's aligned" in note for note in record["notes"])
    with Image.open(tmp_path / "out" / "images" / "edit_me.png") as face:
        assert face.size == (16, 16)
    words = ["--attr_int", "-1..1", "--n_slide", "3", "--overwrite", "--num_samples", "2"]
    files, _ = run(edit, room, checkpoint, tmp_path, *words)
    assert files == ["slide_Smiling_000013.png", "slide_Wearing_Hat_000013.png"]
