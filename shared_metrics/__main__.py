"""Score images: FID, Inception Score, KID, precision and recall.

    python -m shared_metrics evaluate FAKES --real REALS --metrics fid,is,kid,pr
    python -m shared_metrics stats REALS -o reals.npz

FAKES and REALS are folders of images (searched through their sub-folders) or .npz / .npy files of
uint8 (N, H, W, 3); REALS also a statistics file of ours or of a peer. Several processes or cards
share the images:
    python -m paddle.distributed.launch --nproc_per_node 2 .../shared_metrics/__main__.py \\
        evaluate FAKES --real REALS
"""

import argparse
import json
import sys
from pathlib import Path

if (
    not __package__
):  # started by its path: modules here must not hide the standard library's `statistics`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared_metrics import needs
from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.flags import BATCH, IMAGES, background_flag, version_flag
from shared_metrics.images import set_background
from shared_metrics.outputs import check_file
from shared_metrics.process import (
    choose_device,
    command,
    configure_cpu,
    init_distributed,
    is_main,
    rank,
    world_size,
)
from shared_metrics.statistics import FORMATS

COMMANDS = {  # name: (metrics, help)
    "evaluate": (None, "several scores in one pass"),
    "fid": ("fid", "Frechet Inception Distance to real images"),
    "is": ("is", "Inception Score"),
    "kid": ("kid", "Kernel Inception Distance to real images"),
    "pr": ("pr", "improved precision and recall against real images, over Inception features"),
    "stats": (
        None,
        "write the statistics of images, to be used as --real, or convert a statistics file",
    ),
}

# What flags need to count, see needs.py.
NEEDS = {
    "real": "metrics fid kid pr fd_eff kd_eff pr_eff",
    "fid_curve": "metrics fid",
    "splits": "metrics is",
    "inception_weights": "metrics fid is kid pr",
    "protocol": "metrics fid is kid pr",
    "efficientnet_weights": "metrics fd_eff kd_eff pr_eff",
}
STATS_NEEDS = {
    "inception_weights": "network inception",
    "protocol": "network inception",
    "efficientnet_weights": "network efficientnet",
}


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults shown, paragraphs kept."""


def parse_args(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m shared_metrics", description=__doc__, formatter_class=Help
    )
    version_flag(p)
    commands = p.add_subparsers(dest="command", required=True)
    for name, (metrics, what) in COMMANDS.items():
        parser = commands.add_parser(name, help=what, description=what, formatter_class=Help)
        parser.set_defaults(metrics=metrics, real="", fid_curve=False, splits=10)
        add_flags(parser.add_argument, name)
    words = sys.argv[1:] if argv is None else list(argv)
    args = p.parse_args(words)
    table = STATS_NEEDS if args.command == "stats" else NEEDS
    flags = needs.given(commands.choices[args.command], words[words.index(args.command) + 1 :])
    needs.check(args, flags, table)
    return args


# fmt: off
def add_flags(add, name):
    """The flags of the command of that name."""
    add("images", help="folder of images, or .npz / .npy of uint8 (N, H, W, 3)")
    if name == "stats":
        add("-o", "--output", required=True, help="statistics file to write")
        add("--overwrite", action="store_true", help="replace a file that is there")
        add("--format", default="npz", choices=FORMATS,
            help="npz: of pytorch-fid, clean-fid, StudioGAN; the others' pickles")
        add("--keep", type=IMAGES.or_0, default=0,
            help="features to keep in the file; kid and pr need about 10000")
        add("--network", default="inception", choices=["inception", "efficientnet"],
            help="whose features: efficientnet for fd_eff, kd_eff and pr_eff")
    if name == "evaluate":
        add("--metrics", default="fid,is",
            help="of fid, is, kid, pr and, over EfficientNet-Lite0, fd_eff, kd_eff, pr_eff, joined "
                 "by commas")
    if name not in ("is", "stats"):
        add("--real", default="", help="real images, or their statistics (.npz, .pkl)")
    if name in ("evaluate", "fid"):
        add("--fid_curve", action="store_true",
            help="also FID of random parts, and extrapolated to infinitely many images")
    if name in ("evaluate", "is"):
        add("--splits", type=IMAGES, default=10, help="parts of the Inception Score")
    add("--classes", default="",
        help='only these classes, names or positions of the sub-folders ("cat,dog", "0-5" without '
             'the 5th); "" = all')
    add("--limit", type=IMAGES, default=None,
        help="at most so many images (of either side), evenly spread; None = all")
    add("--protocol", default="tf",
        help="tf (torch-fidelity, StyleGAN), pytorch-fid, clean (clean-fid) or mmagic")
    add("--inception_weights", default="auto",
        help="auto (cache, then download), random, or a published file")
    add("--efficientnet_weights", default="auto", help="auto (the pip package's) or a file")
    add("--batch_size", type=BATCH, default=32, help="images in one pass through the network")
    background_flag(add)
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--json", action="store_true",
        help="print one JSON object on stdout and nothing else there")
# fmt: on


def main(argv=None):
    args = parse_args(argv)
    if args.command == "stats" and is_main():
        args.output = str(check_file(args.output, "-o", args.overwrite, reads=[args.images]))
    configured = configure_cpu()
    set_background(args.background)
    device = choose_device(args.device)
    init_distributed()
    if is_main():
        print(f"{device}; {configured}", file=sys.stderr)
    report = write_statistics(args) if args.command == "stats" else score(args)
    if is_main():
        print(json.dumps(report) if args.json else readable(report))


def score(args):
    from shared_metrics import image_sets, scoring  # import Paddle: after configure_cpu

    metrics = (COMMANDS[args.command][0] or args.metrics).split(",")
    images = image_sets.open_source(args.images, classes=args.classes, limit=args.limit)
    scores = scoring.open_scores(
        open_networks(args, metrics),
        args.real,
        number=images.number,
        splits=args.splits,
        quarters=args.fid_curve,
        share=(rank(), world_size()),
        name=images.name,
        classes=args.classes,
        limit=args.limit,
        progress=is_main(),
    )
    scoring.feed(scores, images, progress=is_main())
    record = scores.result()
    record["samples"]["source"] = images.name
    record["notes"] = [*images.notes, *record["notes"]]
    return record


def open_networks(args, metrics):
    from shared_metrics import scoring

    return scoring.open_networks(
        metrics,
        inception_weights=args.inception_weights,
        efficientnet_weights=args.efficientnet_weights,
        protocol=args.protocol,
        batch_size=args.batch_size,
    )


def write_statistics(args):
    from shared_metrics import image_sets, scoring
    from shared_metrics.statistics import Statistics

    if Path(args.images).is_file() and not scoring.holds_images(args.images):
        if args.classes or args.limit or args.keep:
            raise UserError(
                f"--classes, --limit, --keep: have no effect on {args.images}, a statistics file; "
                "leave them out"
            )
        stats = Statistics.load(args.images, args.protocol)
    else:
        images = image_sets.open_source(args.images, classes=args.classes, limit=args.limit)
        metric = "fd_eff" if args.network == "efficientnet" else "fid"
        ((network, _),) = open_networks(args, [metric])
        share = (rank(), world_size())
        stats = scoring.statistics_of(images, network, args.keep, share=share, progress=is_main())
    if is_main():
        stats.save(args.output, args.format)
    return {"output": args.output, "number": stats.number, **stats.info, "notes": stats.notes}


def readable(report):
    """The report as lines of text, the scores last."""
    lines = [f"{key}: {value}" for key, value in report.items() if key not in ("scores", "notes")]
    lines += [f"note: {note}" for note in report.get("notes", ())]
    lines += [f"{name} = {value:.6g}" for name, value in report.get("scores", {}).items()]
    inception = report.get("inception")
    if inception and not inception["comparable"]:
        lines.append("comparable: False (random Inception weights)")
    return "\n".join(map(shown, lines))


if __name__ == "__main__":
    command(main)()
