"""train.py from its flags to its exit code: a user's mistake ends in one line that names it."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from shared_metrics import outputs, process, weights
from shared_metrics.runs import checkpoint
from shared_metrics.runs.log import RunLog
from tests.acgan.test_convert import published, random_states, write
from tests.contract.papers import PAPERS

TINY = " ".join(PAPERS["acgan"].tiny_flags).replace("--batch_size 8", "--batchSize 4").split()


@pytest.fixture
def acgan(paper):
    return paper("acgan")


@pytest.fixture
def train(acgan, capfd, monkeypatch):
    """Function that runs train.py's main on flags and returns (exit code, stdout, stderr)."""
    curves = RunLog._curves
    monkeypatch.setattr(RunLog, "_curves", lambda log: None)  # drawing takes longest of all
    main = process.command(acgan.train.main)

    def run(*flags, draw=False):
        if draw:
            monkeypatch.setattr(RunLog, "_curves", curves)
        code = 0
        try:
            main([str(flag) for flag in (*TINY, *flags)])
        except SystemExit as stopped:
            code = stopped.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def data(tmp_path):
    """Three classes of four 32x32 images: three batches of TINY."""
    return folders(tmp_path / "data", "abc", 4)


def folders(root, names, number):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(number):
            noise = rng.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{i}.png")
    return root


def one_line(stderr, *parts):
    """The last line of stderr names all parts, and there is no traceback."""
    line = stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    for part in parts:
        assert str(part) in line, line


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# ---- the flags of the published code ----

# Name, value given, name in the namespace, default: the specification's table for train.py.
# --dataroot has no default here (it was the author's own path), and --num_classes is the number
# that --classes chooses (ten of ImageNet's).
PUBLISHED = [
    ("--dataroot", "photos", "data_path", ""),
    ("--workers", 1, "num_workers", 4),
    ("--batchSize", 7, "batch_size", 100),
    ("--imageSize", 64, "imsize", 128),
    ("--nz", 50, "nz", 110),
    ("--ngf", 8, "ngf", 64),
    ("--ndf", 16, "ndf", 64),
    ("--niter", 3, "niter", 500),
    ("--lr", 0.5, "lr", 2e-4),
    ("--beta1", 0.25, "beta1", 0.5),
    ("--check_path", "A", "check_path", "checkpoints"),
    ("--result_path", "B", "result_path", "results"),
    ("--class_result_path", "C", "class_result_path", "class_results"),
    ("--log_path", "D", "log_path", "log"),
    ("--save_freq", 2, "save_freq", 5),
    ("--num_classes", 11, "num_classes", None),
]


def test_published_flags_and_defaults(acgan):
    words = []
    for flag, value, _, _ in PUBLISHED:
        words += [flag, str(value)]
    default = acgan.train.parse_args([])
    args = acgan.train.parse_args(words)
    for flag, value, name, expected in PUBLISHED:
        assert (getattr(default, name), getattr(args, name)) == (expected, value), flag


def test_the_four_folders_follow_the_output_folder(acgan):
    args = acgan.train.parse_args(["--output_dir", "out", "--log_path", "elsewhere"])
    assert (args.check_path, args.result_path) == ("out/checkpoints", "out/results")
    assert args.log_path == "elsewhere"
    assert args.class_result_path == "out/class_results"


def test_widths_length_of_z_and_side_have_an_effect(train, data, tmp_path):
    flags = ["--dataroot", data, "--output_dir", tmp_path, "--iterations", 1]
    code, _, err = train(*flags, "--ngf", 8, "--ndf", 12, "--nz", 9, "--imageSize", 64)
    assert code == 0, err
    state = weights.load(tmp_path / "checkpoints" / "iter_0000001.pdparams")
    assert state["generator"]["fc1.weight"].shape == (9, 768 * 8 // 64)
    assert state["generator"]["tconv6.0.weight"].shape == (8, 3, 4, 4)  # the layer that 32 px lack
    assert state["discriminator"]["conv1.0.weight"].shape == (16 * 12 // 64, 3, 3, 3)
    assert state["discriminator"]["fc_aux.weight"].shape == (96 * 8 * 8, 3)
    assert Image.open(tmp_path / "class_results" / "a.png").width >= 10 * 64


# ---- runs ----


def test_a_run_writes_its_folder(train, data, tmp_path):
    """Every file and folder where a run puts it by default, by epochs: 0, save_freq, the last."""
    out = tmp_path / "out"
    flags = ["--dataroot", data, "--output_dir", out, "--held_out", data]
    flags += "--save_every 0 --sample_every 0 --save_freq 2 --niter 4".split()
    code, printed, err = train(*flags, draw=True)
    assert code == 0, err
    assert "12 images of all 3 classes, 4 each (a, b, c)" in printed
    assert "12 iterations of 4 images, 3 an epoch" in printed
    names = {name for name in files(out) if not name.startswith("log/")}
    expected = {"args.json", "log.txt", "log.jsonl", "curves.png", "results/real_samples.png"}
    expected |= {f"class_results/{name}.png" for name in "abc"}
    for epoch in (0, 2, 3):
        name = f"iter_{3 * (epoch + 1):07d}"
        expected |= {f"checkpoints/{name}.pdparams", f"results/{name}.png"}
    assert names - {".lock"} == expected
    state = checkpoint.load_checkpoint(out / "checkpoints" / "iter_0000012.pdparams")
    assert state["classes"] == ["a", "b", "c"]
    assert (state["class_indices"], state["class_total"]) == ([0, 1, 2], 3)
    assert (state["iteration"], state["batches_per_epoch"]) == (12, 3)
    assert state["args"]["recipe"] == "cifar10"
    grid = Image.open(out / "results" / "iter_0000012.png")
    own = Image.open(out / "class_results" / "a.png")
    assert grid.height >= 3 * 32 and grid.width >= 10 * 32 and own.height >= 10 * 32
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    held_out = [(row["iteration"], row["Acc_held_out"]) for row in rows if "Acc_held_out" in row]
    assert [i for i, _ in held_out] == [3, 9, 12] and all(0 <= v <= 1 for _, v in held_out)


def test_visualdl_shows_the_seeds_curves(train, data, tmp_path):
    visualdl = pytest.importorskip("visualdl")
    flags = ["--dataroot", data, "--output_dir", tmp_path / "out"]
    assert train(*flags, "--iterations", 2, "--sample_every", 1)[0] == 0
    (record,) = (tmp_path / "out" / "log").iterdir()
    reader = visualdl.LogReader(file_path=str(record))
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    for name in ("D_loss", "G_loss", "Acc"):
        logged = [(d.id, d.value) for d in reader.get_data("scalar", f"loss/{name}")]
        expected = [(row["iteration"], pytest.approx(row[name], rel=1e-6)) for row in rows]
        assert logged == expected, name
    assert len(reader.get_data("image", "images/samples")) == 2


def test_the_four_folders_are_where_the_flags_say(train, data, tmp_path):
    out = tmp_path / "out"
    flags = ["--dataroot", data, "--output_dir", out, "--sample_every", 1]
    flags += ["--classes", "a,c", "--num_classes", 2]
    for name in ("check", "result", "class_result", "log"):
        flags += [f"--{name}_path", tmp_path / name]
    assert train(*flags, "--iterations", 1)[0] == 0
    assert files(tmp_path / "check") == {"iter_0000001.pdparams"}
    assert files(tmp_path / "result") == {"iter_0000001.png", "real_samples.png"}
    assert files(tmp_path / "class_result") == {"a.png", "c.png"}
    assert len(files(tmp_path / "log")) == 1
    assert files(out) <= {"args.json", "log.txt", "log.jsonl", ".lock"}
    code, _, err = train(*flags, "--iterations", 2)
    assert code == 2
    one_line(err, "holds a run already", "--resume")
    code, _, err = train(*flags, "--iterations", 2, "--resume")  # auto looks in --check_path
    assert code == 0, err
    assert files(tmp_path / "check") == {"iter_0000001.pdparams", "iter_0000002.pdparams"}
    state = weights.load(tmp_path / "check" / "iter_0000002.pdparams")
    assert state["class_indices"] == [0, 2]


def test_two_runs_never_share_a_folder_of_checkpoints(train, data, tmp_path):
    """Each would take the other's for its own, and delete them."""
    shared = tmp_path / "shared"
    flags = ["--dataroot", data, "--iterations", 1, "--check_path", shared]
    with outputs.lock_folders({"--check_path": shared}):  # as the first run does
        code, _, stderr = train(*flags, "--output_dir", tmp_path / "second")
    assert code == 2
    one_line(stderr, "--check_path", "another run is writing there")
    assert train(*flags, "--output_dir", tmp_path / "second")[0] == 0


@pytest.mark.parametrize("flag", ["--output_dir", "--result_path"])
def test_a_run_never_writes_among_its_data(train, data, tmp_path, flag):
    out = ["--output_dir", tmp_path / "out"] if flag != "--output_dir" else []
    for place in (data, data / "a"):
        code, _, stderr = train("--dataroot", data, *out, flag, place)
        assert code == 2
        one_line(stderr, f"{flag} {place}", "the data themselves lie in")
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused_on_resume(train, data, tmp_path):
    flags = ["--dataroot", data, "--output_dir", tmp_path / "out"]
    assert train(*flags, "--classes", "a,c", "--iterations", 1)[0] == 0
    code, _, err = train(*flags, "--classes", "b,c", "--iterations", 2, "--resume")
    assert code == 2
    one_line(err, "iter_0000001.pdparams", "other classes", "--classes")


def test_another_width_on_resume_lists_the_shapes(train, data, tmp_path):
    flags = ["--dataroot", data, "--output_dir", tmp_path / "out"]
    assert train(*flags, "--iterations", 1)[0] == 0
    code, _, err = train(*flags, "--iterations", 2, "--resume", "--ndf", 8)
    assert code == 2
    one_line(err, "iter_0000001.pdparams", "conv1.0.weight")


def test_published_weights_start_a_run(acgan, train, data, tmp_path):
    """A G and a D in Callifrey's layout, unchanged by a step of rate 0.

    Only the recipe that they belong to takes G.
    """
    arch = published(acgan.model, "callifrey")
    G, D = random_states(acgan.model, arch)
    g_path, d_path = write(tmp_path / "theirs", "callifrey", G=G, D=D)
    flags = ["--dataroot", data, "--iterations", 1, "--lr", 0]
    flags += ["--ngf", arch.ngf, "--ndf", arch.ndf, "--nz", arch.nz]
    code, _, err = train(*flags, "--output_dir", tmp_path / "relu", "--pretrained_model", g_path)
    assert code == 2
    one_line(err, g_path, "fc_relu", "--recipe")
    flags += ["--recipe", "callifrey", "--imageSize", 32, "--ema_decay", 0]
    for path, network, state, other in (
        (g_path, "generator", G, "discriminator"),
        (d_path, "discriminator", D, "generator"),
    ):
        out = tmp_path / network
        code, printed, err = train(*flags, "--output_dir", out, "--pretrained_model", path)
        assert code == 0 and f"{path}: holds no {other}" in printed, err
        saved = weights.load(out / "checkpoints" / "iter_0000001.pdparams")[network]
        for name, value in state.items():
            if not name.endswith(("_mean", "_variance")):
                assert np.array_equal(saved[name], value), name


# ---- what a user can get wrong ----


def test_missing_data(train, tmp_path):
    code, _, err = train("--output_dir", tmp_path / "out")
    assert code == 2
    one_line(err, "--dataroot is missing")
    code, _, err = train("--output_dir", tmp_path / "out", "--dataroot", tmp_path / "nowhere")
    assert code == 2
    one_line(err, "--dataroot", "nowhere", "no such folder")


def test_empty_class_folder(train, data, tmp_path):
    (data / "d").mkdir()
    code, _, err = train("--output_dir", tmp_path / "out", "--dataroot", data)
    assert code == 2
    one_line(err, data / "d", "no images")


def test_held_out_images_of_other_classes(train, data, tmp_path):
    held_out = folders(tmp_path / "h", "ab", 1)
    flags = ["--dataroot", data, "--output_dir", tmp_path / "o"]
    code, _, err = train(*flags, "--held_out", held_out)
    assert code == 2
    one_line(err, "--held_out", "no class folder c.")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_or_skipped(train, data, tmp_path, workers):
    broken = data / "a" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    flags = ["--dataroot", data, "--held_out", data, "--iterations", 3, "--num_workers", workers]
    code, _, err = train("--output_dir", tmp_path / "stops", *flags)
    assert code == 2
    one_line(err, broken)
    code, printed, err = train("--output_dir", tmp_path / "goes_on", *flags, "--skip_bad_images")
    assert code == 0, err
    assert printed.count("skipped: ") == 1 and str(broken) in printed


class Evil:
    """A pickle that would create a file when loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("flag", ["--resume", "--pretrained_model"])
def test_files_that_are_no_weights_are_refused_and_run_nothing(train, data, tmp_path, flag):
    evil = tmp_path / "evil.pdparams"
    target = tmp_path / "executed"
    evil.write_bytes(pickle.dumps({"generator": Evil(target)}))
    state = {"encoder": {"w": np.ones(2, np.float32)}}
    foreign = checkpoint.save_checkpoint(tmp_path / "other", 1, state, keep=0)
    for path in (evil, foreign):
        flags = ["--dataroot", data, "--output_dir", tmp_path / "out", "--iterations", 2]
        code, _, err = train(*flags, flag, path)
        assert code == 2 and not target.exists()
        one_line(err, path)


@pytest.mark.parametrize(
    "flags, named",
    [
        ("--amp fp16", ["--amp fp16", "CPU"]),
        ("--niter 0 --iterations 0", ["--niter 0", "--iterations"]),
        ("--num_classes 10", ["--num_classes 10", "--classes", "3"]),
        ("--classes 10-20", ["--classes 10-20", "the 3 classes"]),
        ("--classes a,x", ["--classes a,x", "'x'"]),
        ("--imageSize 48", ["--imageSize 48", "32, 64 or 128"]),
        ("--nz 3", ["--nz 3", "3 classes"]),
        ("--ngf 6", ["--ngf 6", "multiple of 4"]),
        ("--batchSize 13", ["--batch_size 13", "12"]),
        ("--device gpu:99", ["--device gpu:99"]),
        ("--resume x --pretrained_model y", ["--resume", "--pretrained_model"]),
        ("--resume nowhere.pdparams", ["--resume nowhere.pdparams", "no such file"]),
        ("--pretrained_model nowhere.pdparams", ["nowhere.pdparams"]),
    ],
)
def test_impossible_flags(train, data, tmp_path, flags, named):
    code, _, err = train("--dataroot", data, "--output_dir", tmp_path / "out", *flags.split())
    assert code == 2
    one_line(err, *named)
    assert not list(tmp_path.rglob("*.pdparams"))


UNREADABLE = ["--batchSize 0", "--recipe cifar", "--lr x", "--beta1 1", "--class_loss nll"]
UNREADABLE += ["--niter 1.5", "--betta1 0"]


@pytest.mark.parametrize("flags", UNREADABLE)
def test_flags_that_cannot_be_read_exit_with_2(train, flags):
    code, _, err = train(*flags.split())
    assert code == 2 and flags.split()[0] in err.splitlines()[-1]
