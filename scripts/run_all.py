"""Train every paper inside a time budget and put all side by side: what run_all.sh runs.

Papers train next to each other, one a core, each until its share of the time is over: train.py
saves and ends at SIGTERM, so that no speed has to be known before. Then its test.py draws and
scores. What a paper leaves unused, by failing or by being done, is shared by those after it.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFilter, ImageOps

from scripts import compare_papers, make_toy_data
from shared_metrics.download import fetch
from shared_metrics.errors import UserError
from shared_metrics.files import read_text, save_json, shown
from shared_metrics.flags import positive, version_flag
from shared_metrics.images import list_images, middle_square, read_rgb
from shared_metrics.inception_weights import SHA256, URL
from shared_metrics.outputs import lock_folders
from shared_metrics.process import command, usable_cores
from shared_metrics.results import read_record

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32  # px of every picture: minutes are enough for these
HELD_OUT = 600  # pictures that are scored against, and as many drawn
MINUTE = 60  # seconds
MOST = 6000  # pictures that are taken out of a user's folder
CLASSES = 6
TESTING = 45.0  # seconds that a test and the start of a training take, as a guess
LEAST = 20.0  # seconds that a training is given, whatever is left
STOPPING = 120  # seconds that a training may take to begin, or to save
NETWORKS = {"fid": "inception", "fd_eff": "efficientnet"}  # of a metric
PAIRED = ("pairs", "domains")  # folders of pictures of two kinds
ENDED = 143  # the exit code of a training that was told to end


@dataclass(frozen=True)
class Paper:
    """One paper. share: of the time, as a weight; data: which of `make_data`; train, test: flags,
    where {data} stands for the folder of data sets, {classes} for the number of classes, {number}
    for that of pictures to draw.
    """

    name: str
    folder: str
    share: float
    data: str
    train: str
    test: str = ""


NOISE = "--data_dir {data} --dataset classes/train --image_size 32 --channels 3 --batch_size 32"
FACES = (
    "--data_dir {data} --dataset faces --split official --image_size 32 --crop_size 32 "
    "--selected_attrs Eyeglasses,Smiling,Wearing_Hat --g_base_dims 16 --d_base_dims 16"
)
SKIPS = (
    "--batch_size 16 --g_lr 4e-4 --d_lr 4e-4 --d_fc_dim 128 --n_layers 4 --num_discriminator_time 2"
)
MAPS = "--label_nc 7 --batch_size 4 --ngf 3 --ndf 16 --num_D 2 --lambda_vgg 0"
TRANSLATION = (
    "--data_dir {data} --image_size 32 --crop_size 32 --net_G resnet_6block --g_base_dims 16 "
    "--d_base_dims 16 --batch_size 4"
)
EACH = "--seeds 0-{last} --labels 0-{last_class}"
# fmt: off
# What departs from the published settings does so to show something within minutes of a core.
PAPERS = (
    Paper("sagan", "sagan", 1.3, "classes",
        "--data_path {data}/classes/train --recipe cifar10 --imsize 32 --no-flip --g_conv_dim 8 "
        "--d_conv_dim 16 --batch_size 32 --d_steps_per_iter 1 --g_lr 4e-4 --d_lr 8e-4 "
        "--ema_decay 0.99 --ema_start 100", EACH),
    Paper("acgan", "acgan", 0.9, "classes",
        "--dataroot {data}/classes/train --recipe cifar10 --classes 0-{classes} --ngf 32 --ndf 24 "
        "--dropout 0.1 --class_on real --g_lr 2e-4 --d_lr 4e-4 --batch_size 32 --ema_decay 0.99 "
        "--ema_start 100", EACH),
    Paper("cgan", "classic_gans", 1.0, "classes",
        f"--model_net CGAN {NOISE} --n_classes {{classes}} --g_base_dims 64 --d_base_dims 32",
        EACH),
    Paper("dcgan", "classic_gans", 0.8, "classes",
        f"--model_net DCGAN {NOISE} --g_base_dims 16 --d_base_dims 16", "--num_samples {number}"),
    Paper("pix2pix", "classic_gans", 0.8, "pairs",
        f"--model_net Pix2pix {TRANSLATION} --dataset pairs", "--eval"),
    Paper("cyclegan", "classic_gans", 1.0, "domains",
        f"--model_net CycleGAN {TRANSLATION} --dataset domains --learning_rate 4e-4"),
    Paper("stargan", "classic_gans", 1.6, "faces",
        f"--model_net StarGAN {FACES} --batch_size 8 --g_lr 2e-4 --d_lr 4e-4 --g_repeat_num 3 "
        "--d_repeat_num 4 --n_critic 3 --lr_decay none --lambda_rec 20"),
    Paper("attgan", "classic_gans", 1.0, "faces",
        f"--model_net AttGAN {FACES} {SKIPS}"),
    Paper("stgan", "classic_gans", 1.0, "faces",
        f"--model_net STGAN {FACES} {SKIPS} --shortcut_layers 3 --inject_layers 3 "
        "--gru_n_layers 3 --bn_momentum 0.9"),
    Paper("spade", "classic_gans", 1.1, "maps",
        f"--model_net SPADE --data_dir {{data}}/.. --dataset data/maps {MAPS} --d_nlayers 3 "
        "--load_width 32 --load_height 32 --crop_width 32 --crop_height 32 "
        "--num_upsampling_layers normal --learning_rate 4e-4"),
    Paper("gaugan_simam", "gaugan_simam", 1.1, "maps",
        f"--data_path {{data}}/maps {MAPS} --n_layers_D 3 --crop_size 32 --load_size 32 --no-flip "
        "--g_lr 4e-4", "--data_path {data}/maps"),
)
# fmt: on


# ---- data ----


def make_data(folder, source):
    """Everything that the papers train on, below `folder`; what is there already is kept.

    Args: source, "toy" or a folder with one sub-folder of pictures a class.
    Returns: number of classes in `classes/train`.
    """
    classes = folder / "classes"
    make = make_toy_data.make
    with ProcessPoolExecutor(usable_cores()) as pool:
        jobs = [
            pool.submit(make, folder / "faces", "celeba", 4, 1500, HELD_OUT, SIDE),
            pool.submit(make, folder / "maps", "coco_stuff", 4, 1500, HELD_OUT, SIDE),
        ]
        if source == "toy":
            jobs.append(pool.submit(make, classes, "figures", CLASSES, 2400, HELD_OUT, SIDE))
        elif not classes.exists():
            take_classes(Path(source).expanduser(), classes)
        for job in jobs:
            job.result()
    for split, name in (("train", "train"), ("test", "val")):
        files = list_images(classes / name)
        if not (folder / "domains" / f"{split}B").exists():
            make_pictures(folder, split, files)
    return sum(path.is_dir() for path in (classes / "train").iterdir())


def take_classes(source, target):
    """The middle squares of at most MOST pictures of class folders, small; every sixth for val."""
    names = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    if len(names) < 2:
        raise UserError(f"--data {source}: needs two or more sub-folders of pictures, one a class")
    partial = target.with_name(f".{target.name}")  # which a run that was ended may have left
    shutil.rmtree(partial, ignore_errors=True)
    for place in names:
        files = list_images(place)[: MOST // len(names)]
        if len(files) < 6:
            raise UserError(f"--data {source}: {place.name} holds {len(files)} pictures; 6 or more")
        for i, file in enumerate(files):
            part = partial / ("train" if i % 6 else "val") / place.name
            part.mkdir(parents=True, exist_ok=True)
            middle_square(file, SIDE).save(part / f"{i:06d}.png")
    partial.rename(target)


def make_pictures(folder, split, files):
    """Pairs (the outlines of a picture, the picture), and two domains: pictures, and others as
    negatives. No picture is in both domains, so that nothing pairs.
    """
    places = [folder / name / f"{split}{domain}" for name in PAIRED for domain in "AB"]
    domains = [place.with_name(f".{place.name}") for place in places]  # until all are whole
    for place in (*domains, *places):
        shutil.rmtree(place, ignore_errors=True)
    for place in domains:
        place.mkdir(parents=True)
    for i, file in enumerate(files):
        picture = read_rgb(file)
        outlines = ImageOps.invert(picture.convert("L").filter(ImageFilter.FIND_EDGES))
        name = f"{i:06d}.png"
        outlines.convert("RGB").save(domains[0] / name)
        picture.save(domains[1] / name)
        other = ImageOps.invert(picture) if i % 2 else picture
        other.save(domains[2 + i % 2] / name)
    for domain, place in zip(domains, places, strict=True):  # the one that is looked for last
        domain.rename(place)


# ---- one paper ----


class Failed(Exception):
    """A step of a paper that did not end well: (step, reason)."""


class Runner:
    """Trains and tests papers until a moment.

    Args: output, the folder of everything; deadline, on time.monotonic(); values, what stands for
        {data}, ... in the flags; metric, that all are scored with.
    """

    def __init__(self, output, deadline, values, metric):
        self.output = output
        self.deadline = deadline
        self.values = values
        self.metric = metric
        self.lock = threading.Lock()
        self.waiting = []
        self.running = set()
        self.stopped = False

    def run(self, papers, workers):
        """Run the papers, `workers` at a time, those of most time first."""
        self.waiting = sorted(papers, key=lambda paper: -paper.share)
        self.workers = workers
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # a signal is seen between these
                thread.join(0.5)

    def stop(self):
        """End what is running; trainings save first."""
        self.stopped = True
        with self.lock:
            for process in self.running:
                process.terminate()
        for process in list(self.running):
            process.wait(STOPPING)

    def _work(self):
        while not self.stopped:
            with self.lock:
                if not self.waiting:
                    return
                seconds = self._seconds()
                paper = self.waiting.pop(0)
            self._run(paper, seconds)

    def _seconds(self):
        """For the training of the first that waits: its share of what is left, tests aside."""
        left = self.deadline - time.monotonic()
        rounds = -(-len(self.waiting) // self.workers)  # papers that a worker has yet to run
        share = self.waiting[0].share * len(self.waiting) / sum(p.share for p in self.waiting)
        return max(LEAST, min(left - TESTING, (left / rounds - TESTING) * share))

    def _run(self, paper, seconds):
        folder = self.output / paper.name
        folder.mkdir(parents=True, exist_ok=True)
        failure = folder / "failed.json"
        failure.unlink(missing_ok=True)
        say(f"{paper.name}: trains for {seconds / 60:.1f} minutes")
        try:
            self._train(paper, folder, seconds)
            self._test(paper, folder)
            record = read_record(folder / "test" / "results.json")
            scores = ", ".join(
                f"{n} {v:.4g}" for n, v in record["scores"].items() if "term" not in n
            )
            say(f"{paper.name}: {record['checkpoint']['iteration']} iterations, {scores}")
        # A full disk or a training that does not end stops no other paper either.
        except (Failed, UserError, OSError, subprocess.TimeoutExpired) as error:
            if not self.stopped:
                step, reason = error.args if isinstance(error, Failed) else ("run", str(error))
                say(f"{paper.name}: FAILED, {step}: {reason}")
                save_json({"paper": paper.name, "step": step, "reason": reason}, failure)

    def _train(self, paper, folder, seconds):
        # Far more iterations than there is time for: SIGTERM ends it, as it would a user's run.
        always = (
            "--iterations 1000000 --log_every 20 --sample_every 1000000 --save_every 200 "
            "--num_workers 1 --resume auto --output_dir {out}/run"
        )
        code = self._call(paper, folder, "train", f"train.py {paper.train} {always}", seconds)
        if code not in (0, ENDED):
            raise Failed("training", last_line(folder / "train.txt"))

    def _test(self, paper, folder):
        files = sorted((folder / "run" / "checkpoints").glob("iter_*.pdparams"))
        if not files:
            raise Failed("training", "no checkpoint within its time; give a larger --budget")
        flags = (
            f"test.py --pretrained_model {{out}}/run/checkpoints/{files[-1].name} {paper.test} "
            f"--metrics {self.metric} --output_dir {{out}}/test --overwrite"
        )
        if paper.data == "classes":
            flags += " --real {data}/real.npz"
        if self._call(paper, folder, "test", flags, None) != 0:
            raise Failed("testing", last_line(folder / "test.txt"))

    def _call(self, paper, folder, step, flags, seconds):
        """The exit code of a command in the paper's folder, ended after so many seconds."""
        places = {"data": self.output / "data", "out": folder}
        values = self.values | {name: relative(path, paper) for name, path in places.items()}
        words = [word.format(**values) for word in shlex.split(flags)]
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, usable_cores() // self.workers))}
        with open(folder / f"{step}.txt", "w", encoding="utf-8") as log:
            log.write(f"cd {paper.folder} && python {shlex.join(words)}\n")
            log.flush()
            with self.lock:
                if self.stopped:
                    raise Failed(step, "stopped")
                process = subprocess.Popen(
                    [sys.executable, *words],
                    cwd=ROOT / paper.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for this script, which then ends them
                )
                self.running.add(process)
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                # Before its first row a training is still reading its data, and would lose all.
                begun = folder / "run" / "log.jsonl"
                wait_for(lambda: begun.exists() or process.poll() is not None)
                if process.poll() is not None:
                    return process.returncode
                process.terminate()
                process.wait(STOPPING)
                return ENDED
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                self.running.discard(process)


def wait_for(condition):
    """Until it holds, at most STOPPING seconds."""
    end = time.monotonic() + STOPPING
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)


def relative(path, paper):
    """The path as seen from the paper's folder, where its commands run."""
    return os.path.relpath(path, ROOT / paper.folder)


def last_line(path):
    """The last line of a log, below that of its command: the error."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()[1:]]
    return next((line for line in reversed(lines) if line), "no output")[:500]


def say(text):
    print(f"== {shown(text)}", flush=True)


# ---- all of them ----


def remembered(path, name, choices=None):
    """The text under a name in a small file of an earlier run. Raises: UserError."""
    try:
        value = str(json.loads(read_text(path))[name])
        return value if choices is None else {word: word for word in choices}[value]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = type(error).__name__
        raise UserError(f"{path}: damaged ({reason}); delete it, or its folder") from None


def choose_metric(folder):
    """fid where Inception's published weights are at hand, else fd_eff; one for all papers, also
    when a run goes on elsewhere.
    """
    path = folder / "metric.json"
    if path.exists():
        return remembered(path, "metric", NETWORKS)
    try:
        fetch(URL, SHA256)
        metric = "fid"
    except UserError as error:
        say(f"scores are over EfficientNet-Lite0: {error}")
        metric = "fd_eff"
    save_json({"metric": metric}, path)
    return metric


def make_statistics(output, metric):
    """data/real.npz, of the held-out pictures of the classes."""
    path = output / "data" / "real.npz"
    if not path.exists():
        words = ["stats", str(output / "data" / "classes" / "val"), "-o", str(path)]
        words = [sys.executable, "-m", "shared_metrics", *words, "--network", NETWORKS[metric]]
        if subprocess.run(words, cwd=ROOT).returncode:
            raise UserError(f"{path}: the statistics could not be made; see above")


def check_source(output, source):
    """UserError where the folder was begun with other data: its scores would not compare."""
    path = output / "data.json"
    known = remembered(path, "data") if path.exists() else source
    if known != source:
        raise UserError(f"--data {source}: {output} was begun with {known}; name another --output")
    save_json({"data": source}, path)


def is_done(folder):
    """Whether a paper is trained and scored."""
    try:
        read_record(folder / "test" / "results.json")
    except UserError:
        return False
    return not (folder / "failed.json").exists()


def parse_args(argv):
    names = [paper.name for paper in PAPERS]
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    version_flag(p)
    p.add_argument("--budget", type=positive, required=True, help="minutes in all")
    p.add_argument("--data", default="toy", help="toy, or a folder with one sub-folder a class")
    p.add_argument("--output", default=str(ROOT / "run_all"), help="folder of everything")
    p.add_argument("--only", default="", help=f"some of {','.join(names)}")
    args = p.parse_args(argv)
    chosen = args.only.split(",") if args.only else names
    for name in chosen:
        if name not in names:
            raise UserError(f"--only {args.only}: no paper {name}; choose from {', '.join(names)}")
    return args, [paper for paper in PAPERS if paper.name in chosen]


def main(argv=None):
    """Make data, train, test, compare; returns 1 where a paper failed."""
    args, papers = parse_args(argv)
    with lock_folders({"--output": Path(args.output).expanduser().absolute()}):
        return run_all(args, papers)


def run_all(args, papers):
    """The same, in a folder that this process holds."""
    deadline = time.monotonic() + MINUTE * args.budget - 15  # for the page
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = Path(args.output).expanduser().absolute()
    check_source(output, args.data)
    say("makes the data")
    classes = make_data(output / "data", args.data)
    metric = choose_metric(output)
    make_statistics(output, metric)
    values = {"classes": classes, "last_class": classes - 1, "last": HELD_OUT // classes - 1}
    runner = Runner(output, deadline, values | {"number": HELD_OUT}, metric)
    waiting = [paper for paper in papers if not is_done(output / paper.name)]
    try:
        runner.run(waiting, min(4, usable_cores(), len(waiting)))
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second one must not leave trainings behind
        runner.stop()
        say("stopped; the same command goes on")
        raise
    folders = [str(output / paper.name) for paper in papers]
    compare_papers.main([*folders, "--output_dir", str(output / "comparison"), "--overwrite"])
    failed = [paper.name for paper in papers if (output / paper.name / "failed.json").exists()]
    if failed:
        say(f"failed: {', '.join(failed)}; the page tells why")
    return 1 if failed else 0


if __name__ == "__main__":
    command(main)()
