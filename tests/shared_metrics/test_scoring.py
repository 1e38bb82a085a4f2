"""One pass over images of any source: scores, statistics, notes, refusals; several processes see
each image once.

A stand-in for the network keeps these tests fast: its features are a few pixel means, seeded
directions of them.
"""

import json

import numpy as np
import pytest
from PIL import Image

from shared_metrics import scores, scoring
from shared_metrics.errors import UserError
from shared_metrics.image_sets import open_source
from shared_metrics.protocols import get_protocol
from shared_metrics.scoring import (
    FeatureScores,
    Scores,
    evaluate,
    read_real,
    statistics_of,
)
from shared_metrics.statistics import Statistics
from tests.conftest import ROOT, run_cli

STAND_IN = '''
import numpy as np
from shared_metrics.protocols import get_protocol

class StandIn:
    """Features: 2048 seeded mixtures of the means of an image's quarters, shifted by a variant."""

    name, dimensions = "inception", 2048

    def __init__(self, weights="random", protocol="tf", batch_size=8):
        self.protocol, self.batch_size = get_protocol(protocol), batch_size
        self.info = {"source": weights, "sha256": weights * 8, "comparable": weights != "random"}
        self.info |= {"protocol": protocol, "variant": self.protocol.variant}
        self.mix = np.random.RandomState(0).rand(12, 2048).astype(np.float32)
        self.seen = 0

    def features(self, images, variant=None):
        self.seen += len(images)
        rows = []
        for image in images:
            assert image.dtype == np.uint8
            h, w = image.shape[0] // 2, image.shape[1] // 2
            quarters = (image[:h, :w], image[:h, w:], image[h:, :w], image[h:, w:])
            rows.append([quarter.mean((0, 1)) / 255 for quarter in quarters])
        x = np.array(rows, np.float32).reshape(-1, 12) @ self.mix
        return x + (variant == "pil")

    def logits(self, features, bias=False):
        return features[:, :1008] * 3
'''
exec(STAND_IN)


def pictures(n=30, seed=0, size=(8, 8)):
    return np.random.RandomState(seed).randint(0, 256, (n, *size, 3)).astype(np.uint8)


def folder_of(path, images, classes=("a", "b")):
    for i, image in enumerate(images):
        place = path / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:03}.png")
    return path


@pytest.fixture
def extractor():
    return StandIn()  # noqa: F821


def test_all_scores_of_one_pass_equal_the_functions_of_arrays(extractor):
    fakes, reals = pictures(40), pictures(36, seed=1)
    real = statistics_of(reals, extractor, keep=100)
    x, y = extractor.features(fakes), extractor.features(reals)
    extractor.seen = 0
    found = evaluate(iter([fakes[:7], fakes[7:]]), extractor, ("fid", "is", "kid", "pr"), real)
    assert extractor.seen == 40  # one pass
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    expected = scores.frechet_distance(x64.mean(0), np.cov(x64.T), y64.mean(0), np.cov(y64.T))
    expected |= scores.inception_score(extractor.logits(x)) | scores.kernel_distance(x, y, size=36)
    expected |= scores.precision_recall(y, x)
    assert found["scores"] == pytest.approx(expected, rel=1e-5)
    assert found["comparable"] is False and found["samples"]["number"] == 40
    assert found["real"]["number"] == 36 and found["real"]["sha256"] == real.sha256()
    json.dumps(found)  # a part of a record


def test_memory_holds_no_features_for_fid_and_is(extractor, monkeypatch):
    """With the number known, nothing that grows is kept."""
    kept = []
    monkeypatch.setattr(scoring.Statistics, "_keep", lambda self, *rows: kept.append(rows))
    real = statistics_of(pictures(), extractor)
    network = FeatureScores(extractor, ("fid", "is"), real, number=30)
    Scores([network]).update(pictures())
    assert not kept and not network.logits
    assert all(part.features is None for part in network.parts)


@pytest.mark.parametrize("protocol", ["tf", "mmagic"])
def test_a_known_number_changes_nothing(protocol):
    extractor, fakes = StandIn(protocol=protocol), pictures(37)  # noqa: F821
    known = evaluate(iter([fakes[:20], fakes[20:]]), extractor, ("is",), num_images=37)
    assert known["scores"] == pytest.approx(
        evaluate(iter([fakes]), extractor, ("is",))["scores"], rel=1e-9, abs=1e-8
    )  # float32 features depend a little on how many images a matrix product takes
    expected = {"tf": (0, 2020, False), "mmagic": (1, None, True)}[
        protocol
    ]  # its own resize, order kept, equal parts
    logits = extractor.logits(extractor.features(fakes) + expected[0])
    assert known["scores"] == pytest.approx(
        scores.inception_score(logits, 10, *expected[1:]), rel=1e-5
    )


def test_every_source_gives_the_same_scores(extractor, tmp_path):
    fakes = pictures(30)
    np.save(tmp_path / "i.npy", fakes)
    np.savez_compressed(tmp_path / "i.npz", images=fakes, labels=np.arange(30) % 2)
    np.savez(tmp_path / "adm.npz", arr_0=fakes)
    folder_of(tmp_path / "folder", fakes, classes=("all",))
    rest = list(fakes)
    sources = (
        fakes,
        str(tmp_path / "folder"),
        tmp_path / "i.npy",
        tmp_path / "i.npz",
        tmp_path / "adm.npz",
        iter([fakes[:1], fakes[1:1], fakes[1:]]),
        [list(fakes)],
        lambda n: np.stack([rest.pop(0) for _ in range(n)]),
    )
    real = statistics_of(pictures(30, 5), extractor)
    found = [
        evaluate(source, extractor, ("fid", "is"), real, num_images=30)["scores"]
        for source in sources
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_mixed_sizes_and_modes_in_a_folder(extractor, tmp_path):
    Image.new("L", (5, 9), 200).save(tmp_path / "gray.PNG")
    Image.new("RGBA", (8, 4), (9, 8, 7, 0)).save(tmp_path / "alpha.png")
    Image.new("CMYK", (6, 6)).save(tmp_path / "print.JPG")
    (tmp_path / "notes.txt").write_text("not an image")
    stats = statistics_of(tmp_path, extractor)
    assert (
        stats.number == 3 and stats.info["resolution"] == "mixed" and stats.source == str(tmp_path)
    )
    assert statistics_of(pictures(3, size=(4, 6)), extractor).info["resolution"] == "6x4"


def test_classes_choose_images(tmp_path):
    fakes = pictures(30)
    folder = folder_of(tmp_path / "f", fakes, classes=("cat", "dog", "eel"))
    np.savez(tmp_path / "i.npz", images=fakes, labels=np.arange(30) % 3)
    for source, classes, expected in (
        (folder, "dog", [1]),
        (folder, "cat,eel", [0, 2]),
        (folder, "0-2", [0, 1]),
        (tmp_path / "i.npz", "1-3", [1, 2]),
    ):
        source = open_source(source, classes=classes)
        found = np.concatenate([np.stack(images) for images in source.read(4, 0, 1)])
        chosen = fakes[np.isin(np.arange(30) % 3, expected)]
        assert source.number == len(found) == len(chosen)
        assert sorted(found.reshape(len(found), -1).tolist()) == sorted(
            chosen.reshape(len(chosen), -1).tolist()
        )
    for source in (folder, tmp_path / "i.npz"):
        assert open_source(source, limit=99).number == 30
        some = open_source(source, classes="0,2", limit=4)
        found = np.concatenate([np.stack(images) for images in some.read(3, 0, 1)])
        assert some.number == len(found) == 4
        numbers = [next(i for i in range(30) if (fakes[i] == image).all()) for image in found]
        assert {i % 3 for i in numbers} == {0, 2} and max(numbers) > 14  # spread over all of them
    for classes, problem in (
        ("bird", "no class 'bird' among"),
        ("1-4", "reaches past"),
        ("3", "reaches past"),
        ("cat,2", "'2' is a name|'cat' is a name"),
    ):
        with pytest.raises(UserError, match=f"--classes {classes}: .*{problem}.*cat, dog, eel"):
            open_source(folder, classes=classes)
    np.save(tmp_path / "i.npy", fakes)
    with pytest.raises(UserError, match="holds no `labels`"):
        open_source(tmp_path / "i.npy", classes="1")


@pytest.mark.parametrize("kind", ["array", "folder", "npz", "npz of a class", "function"])
def test_the_shares_of_several_processes_make_the_whole(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(
        "shared_metrics.image_sets.BATCH_BYTES", 3 * 192
    )  # batches of a folder end after 3 pictures
    fakes = pictures(23)
    np.savez(tmp_path / "i.npz", images=fakes, labels=np.arange(23) % 2)
    source = {
        "array": lambda: open_source(fakes),
        "folder": lambda: open_source(folder_of(tmp_path / "f", fakes)),
        "npz": lambda: open_source(tmp_path / "i.npz"),
        "npz of a class": lambda: open_source(tmp_path / "i.npz", classes="0"),
        "function": lambda: open_source(lambda n: pictures(n), 23),
    }[kind]()
    whole = [image for batch in source.read(5, 0, 1) for image in batch]
    shares = [[image for batch in source.read(5, k, 3) for image in batch] for k in range(3)]
    assert len(whole) == source.number == sum(map(len, shares))
    if kind != "function":  # image j of process k is number k + 3 j of all
        for n, image in enumerate(whole):
            assert (shares[n % 3][n // 3] == image).all()


def test_fid_curve_and_its_extrapolation(extractor):
    real = statistics_of(pictures(400, 9), extractor)
    found = evaluate(pictures(400), extractor, ("fid",), real, quarters=True)
    plain = evaluate(pictures(400), extractor, ("fid",), real)
    assert found["scores"]["fid"] == pytest.approx(plain["scores"]["fid"], rel=1e-6)
    curve = next(note for note in found["notes"] if note.startswith("FID at random parts: "))
    points = np.array(
        [part.split(" at ") for part in curve.partition(": ")[2].split(", ")], float
    )  # (FID, images)
    assert len(points) == 4 and points[3, 1] == 400 and 60 < points[0, 1] < 140
    line = np.polyfit(1 / points[:, 1], points[:, 0], 1)
    assert found["scores"]["fid_infinity"] == pytest.approx(line[1], rel=1e-3)


def test_statistics_of_another_protocol_or_other_weights_are_refused(tmp_path):
    ours = StandIn()  # noqa: F821
    stats = statistics_of(pictures(), ours)
    stats.save(tmp_path / "s.npz")
    assert read_real(tmp_path / "s.npz", StandIn(protocol="mmagic")).number == 30  # noqa: F821  its FID is tf's
    with pytest.raises(
        UserError, match="s.npz: made under protocol tf .* under pytorch-fid .*not comparable"
    ):
        read_real(tmp_path / "s.npz", StandIn(protocol="pytorch-fid"))  # noqa: F821
    with pytest.raises(UserError, match="s.npz: made with Inception weights randomrandom"):
        read_real(tmp_path / "s.npz", StandIn("real.pth"))  # noqa: F821
    # a peer's file is made with the published weights, whatever their hash; never with random ones
    peer = Statistics.from_moments(
        stats.mean, stats.cov, protocol="tf", variant="tf", comparable=True
    )
    peer.save(tmp_path / "peer.npz")
    assert read_real(tmp_path / "peer.npz", StandIn("real.pth")).number is None  # noqa: F821
    with pytest.raises(UserError, match="peer.npz: made with Inception weights published"):
        read_real(tmp_path / "peer.npz", ours)
    small = Statistics.from_moments(np.zeros(64), np.eye(64), protocol="tf", variant="tf")
    with pytest.raises(UserError, match="of 64 features"):
        evaluate(pictures(), ours, ("fid",), small)


def test_metrics_that_cannot_be_had_are_told_before_the_pass(extractor, tmp_path):
    never = iter([])
    real = statistics_of(pictures(), extractor)
    real.save(tmp_path / "s.npz")
    for metrics, against, message in (
        (("fid", "lpips"), real, "--metrics fid,lpips: choose from fid, is, kid, pr"),
        ((), real, "choose from"),
        (("fid",), None, "needs real images"),
        (("kid",), Statistics.load(tmp_path / "s.npz"), "s.npz keeps no features.*--keep"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(never, extractor, metrics, against)


def test_a_metric_named_twice_is_computed_once(extractor):
    twice = evaluate(pictures(), extractor, ("is", "is"))["scores"]
    assert twice == evaluate(pictures(), extractor, ("is",))["scores"]


def test_too_few_images(extractor):
    real = statistics_of(pictures(), extractor, keep=50)
    for images in (pictures(0), pictures(1)):
        with pytest.raises(UserError, match=r"image\(s\) to score; at least 2"):
            evaluate(iter([images]), extractor, ("fid", "is"), real)
    two = evaluate(pictures(2), extractor, ("fid", "is", "kid"), real)
    assert two["scores"]["is_splits"] == 1 and two["scores"]["fid"] > 0  # of one image IS is 1
    assert any("few images (2, 30)" in note for note in two["notes"])
    assert "kid_std" not in two["scores"]
    assert any("no kid_std: each subset of 2 is the whole" in note for note in two["notes"])
    with pytest.raises(UserError, match="pr: needs more than 3"):
        evaluate(pictures(3), extractor, ("pr",), real)
    with pytest.raises(ValueError, match="9 images were announced, 5 came"):
        evaluate(iter([pictures(5)]), extractor, ("is",), num_images=9)


def test_constant_and_identical_images(extractor):
    gray = np.full((6, 8, 8, 3), 128, np.uint8)
    real = statistics_of(gray, extractor, keep=9)
    found = evaluate(gray, extractor, ("fid", "is", "kid", "pr"), real)["scores"]
    assert (
        found["fid"] == 0
        and found["is"] == pytest.approx(1)
        and found["precision"] == found["recall"] == 1
    )
    assert found["kid"] == pytest.approx(0, abs=1e-9)


def test_notes_tell_what_counts(extractor, tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.jpg")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "b.png")
    notes = evaluate(
        tmp_path, extractor, ("fid",), statistics_of(pictures(5, size=(9, 9)), extractor)
    )["notes"]
    for part in (
        "1 of 2 files are lossy",
        "random Inception",
        "2 images against 5",
        "8x8 against real ones of 9x9",
    ):
        assert any(part in note for note in notes), part


def test_bad_sources_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("no picture")
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 4, 4, 3), np.float32))
    np.save(tmp_path / "gray.npy", np.zeros((2, 4, 4), np.uint8))
    np.savez(tmp_path / "two.npz", a=pictures(2), b=pictures(2))
    np.savez(tmp_path / "none.npz", a=pictures(0))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut")
    for name, message in (
        ("missing", "no folder of images"),
        ("empty", "no images in this folder"),
        ("float.npz", "found images float32"),
        ("gray.npy", r"found uint8 \(2, 4, 4\)"),
        ("two.npz", "need uint8 .*, in one array; found a uint8"),
        ("none.npz", "holds no images"),
        ("broken.npz", "damaged, or no array file"),
    ):
        with pytest.raises(UserError, match=message) as error:
            open_source(tmp_path / name)
        assert name in str(error.value)
    np.save(tmp_path / "cut.npy", pictures(9))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    with pytest.raises(UserError, match="cut.npy: damaged, .* ends before"):
        open_source(tmp_path / "cut.npy")
    with pytest.raises(UserError, match="a.png: not a readable image"):
        list(open_source(tmp_path / "text").read(4, 0, 1))
    with pytest.raises(ValueError, match="asked for 4 images and made 2"):
        list(open_source(lambda n: pictures(2), 4).read(4, 0, 1))
    with pytest.raises(ValueError, match="needs `number`"):
        open_source(pictures)


def test_two_processes_score_each_image_once(tmp_path):
    """23 images over two processes (a padded sampler would count one twice) equal one process,
    sample and all.
    """
    np.save(tmp_path / "fakes.npy", pictures(23))
    np.save(tmp_path / "reals.npy", pictures(31, 1))
    script = tmp_path / "score.py"
    script.write_text(
        "import json, sys\n"
        + STAND_IN
        + """
from shared_metrics import process
from shared_metrics.scoring import evaluate, read_real
process.choose_device("cpu")
process.init_distributed()
share = process.rank(), process.world_size()
extractor = StandIn()
real = read_real("reals.npy", extractor, keep=20, share=share)
metrics = ("fid", "is", "kid", "pr")
found = evaluate("fakes.npy", extractor, metrics, real, keep=10, quarters=True, share=share)
scores = {**found["scores"], "number": found["samples"]["number"],
          "resolution": found["samples"]["resolution"]}
open(f"scores{share[1]}_{share[0]}.json", "w").write(json.dumps(scores))
"""
    )
    env = {"PYTHONPATH": str(ROOT)}
    run_cli(tmp_path, script.name, env=env)
    run_cli(
        tmp_path,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        script.name,
        env=env,
        timeout=180,
    )
    one, *two = [
        json.loads((tmp_path / f"scores{name}.json").read_text()) for name in ("1_0", "2_0", "2_1")
    ]
    for found in two:
        assert found.pop("resolution") == "8x8" and found.pop("number") == 23
        assert {k: v for k, v in found.items() if k != "sha"} == pytest.approx(
            {k: v for k, v in one.items() if k not in ("sha", "resolution", "number")},
            rel=1e-6,
            abs=1e-9,
        )


class Mirrored(StandIn):  # noqa: F821
    """Another feature network, of 12 features an image: the means of its quarters, 1 - p."""

    name, dimensions = "mirrored", 12

    def features(self, images, variant=None):
        return 1 - super().features(images)[:, :12]


def test_two_networks_score_in_one_pass(extractor):
    """Each with its own real statistics, metrics and names; what is not Inception's is never called
    FID or KID.
    """
    fakes, reals = pictures(40), pictures(36, seed=1)
    other = Mirrored("published.pth")
    one = FeatureScores(extractor, ("fid", "is"), statistics_of(reals, extractor), number=40)
    two = FeatureScores(other, ("fid", "kid"), statistics_of(reals, other, keep=50))
    scored = Scores([one, two])
    seen = extractor.seen, other.seen
    for batch in (fakes[:13], fakes[13:]):
        scored.update(batch)
    assert (extractor.seen, other.seen) == (seen[0] + 40, seen[1] + 40)
    record = scored.result()
    x, y = other.features(fakes).astype(np.float64), other.features(reals).astype(np.float64)
    distance = scores.frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert record["scores"]["fd_mirrored"] == pytest.approx(distance["fid"], rel=1e-5)
    distance = scores.kernel_distance(x, y, size=36)
    assert record["scores"]["kd_mirrored"] == pytest.approx(distance["kid"], rel=1e-5)
    alone = evaluate(fakes, extractor, ("fid", "is"), one.real, num_images=40)["scores"]
    theirs = {k: v for k, v in record["scores"].items() if not k.endswith("_mirrored")}
    assert theirs == pytest.approx(alone, rel=1e-5)
    assert (record["inception"]["comparable"], record["mirrored"]["comparable"]) == (False, True)
    assert record["real"]["sha256"] == one.real.sha256() != record["real_mirrored"]["sha256"]
    with pytest.raises(UserError, match="of 12 features an image, not Inception's 2048"):
        FeatureScores(extractor, ("fid",), two.real)


def test_protocols_by_name():
    assert (get_protocol("mmagic").variant, get_protocol("mmagic").is_variant) == ("tf", "pil")
    assert (
        get_protocol("pytorch-fid").variant == "torch" and get_protocol("clean").variant == "clean"
    )
    with pytest.raises(
        UserError, match="--protocol torch: unknown. Choose one of tf, pytorch-fid, clean, mmagic"
    ):
        get_protocol("torch")
