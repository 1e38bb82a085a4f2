"""Draw the pairs of a data set with a trained GauGAN, and score the pictures.

Panels label | generated | real, and scores:
    python test.py --pretrained_model W.pdparams --data_path .../coco_stuff --metrics fid,l1
Label maps alone, as PaddleGAN's photopen.py, go to predict.py:
    python test.py --semantic_label_path L.png --weight_path W.pdparams --output_path O.jpg
"""

import sys

import numpy as np

import predict
from dataset import PREPROCESS
from recipes import PUBLISHED, RECIPES
from shared_metrics import process, testing
from shared_metrics.errors import UserError
from shared_metrics.flags import OFFSET, PX, new_parser, ranges, three
from shared_metrics.image_sets import open_source
from shared_metrics.images import grid, save_png

EITHER = "give either --semantic_label_path (maps to pictures) or --data_path (pairs to scores)"
# What flags need to count: see shared_metrics.needs.
SEGMENTER = ("segmenter_mean", "segmenter_std", "segmenter_size", "segmenter_offset")
NEEDS = dict.fromkeys((*SEGMENTER, "ignore"), "metrics miou")
NEEDS |= {"split": "data_path", "instance_dir": "label_dir"}
PAIRS = {"--data_path", "--image_dir", "--label_dir"}


# fmt: off
def parser():
    """The flags of test.py."""
    p = new_parser(__doc__.partition("\n")[0],
                   "python test.py --weight_path W (--semantic_label_path L --output_path O | "
                   "--data_path D) [flags]")
    add = p.add_argument_group("the data set").add_argument
    add("--data_path", default="",
        help="folder with val_img and val_inst (or val_label), as in train.py")
    add("--image_dir", default="", help="instead: folder of photos")
    add("--label_dir", default="", help="instead: folder of label maps")
    add("--instance_dir", default="", help="besides: folder of instance maps")
    add("--split", default="val",
        help="val (or test, where there is no val) or train: which folders of --data_path")
    add("--preprocess_mode", default="", choices=["", *PREPROCESS],
        help="how to resize (default: as in training)")
    testing.drawing_flags(p, batch_size=8)
    predict.style_flag(p)
    testing.record_flags(p, num_samples="all pairs; fewer are spread evenly over them",
                         metrics="l1,miou,",
                         real="image folder or statistics file (default: the pairs' photos)")

    add = p.add_argument_group("the paper's scores").add_argument
    add("--segmenter", default="",
        help="for miou: a file of `shared_metrics.judges segmenter`, or an exported network")
    halves = {"type": three, "default": (0.5, 0.5, 0.5), "metavar": "R,G,B"}
    add("--segmenter_mean", **halves, help="of an export: taken from RGB in [0, 1] ...")
    add("--segmenter_std", **halves, help="... which is then divided by this")
    add("--segmenter_size", type=PX.or_0, default=0,
        help="of an export: shorter side in px; 0: the pictures'")
    add("--segmenter_offset", type=OFFSET, default=0,
        help="of an export: its id + this = the map's id")
    add("--ignore", type=ranges,
        help="ids of the maps that miou leaves out, e.g. 0 (unknown always is)")
    predict.network_flags(p, {"--limit": "--num_samples"})
    return p
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace."""
    args = testing.parse(parser(), argv, NEEDS, stands_for=predict.STANDS_FOR)
    if not (args.data_path or args.image_dir or args.label_dir):
        raise UserError(EITHER)
    return args


def is_prediction(words):
    """Whether the words of the command line are for predict.py. Raises UserError for both ways."""
    flags = {word.partition("=")[0] for word in words}
    if "--semantic_label_path" in flags:
        if flags & PAIRS:
            raise UserError(EITHER)
        return True
    for flag in ("--output_path", "--keep_size"):
        if flag in flags:
            raise UserError(
                f"{flag}: goes with --semantic_label_path, not with --data_path; leave it out"
            )
    return False


def main(argv=None):
    """Draw, write, score, record."""
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    if is_prediction(words):
        return predict.main(words)
    args = parse_args(words)
    testing.begin(args)
    from evaluation import METRICS, Measures, Sheet, describe, load_pairs, open_output, open_pairs
    from painter import load_painter
    from trainer import colourise

    painter = load_painter(args)
    state = painter.state
    own, metrics = testing.chosen_metrics(args, METRICS)
    data = open_pairs(args, painter.arch, state.get("args", {}))
    names, output = open_output(args, data)
    painter.expect(len(data))
    latents = predict.choose_latents(args, painter, len(data))
    measures = Measures(args, own, painter.arch)
    real = None
    if not args.real:
        real = open_source(data.pictures(), len(data), name=str(data.folders[0]))
    scores = testing.open_scores(args, metrics, len(data), pictures=data.crops, data=real)
    sheet = Sheet(len(data))
    with output:
        for part in testing.parts(len(data), args.batch_size):
            labels, instances, photos = load_pairs(data, part)
            z = None if latents is None else latents[part]
            images = painter.paint(labels, instances, z)
            panels = list(zip(colourise(labels), images, photos, strict=True))
            output.write(names[part], images)
            output.write(names[part], [grid(np.stack(p), 3) for p in panels], folder="panels")
            scores.update(images)
            measures.update(labels, images, photos)
            sheet.update(panels)

    result = scores.result()  # before what takes time of its own
    result["notes"] += data.doubts()
    of_paper = measures.result()
    record = testing.make_record(
        args, state, painter.generator, painter.kind, RECIPES, result, of_paper
    )
    record |= {"paper": "gaugan_simam", "architecture": state["architecture"]}
    drawn = latents is not None and not args.style_image
    seeds = testing.choose_seeds(args, len(data))
    record["samples"] |= testing.about_seeds(args, seeds) if drawn else {"seed": None}
    record["samples"]["data"] = describe(data)
    rows = PUBLISHED.get(record["recipe"], [])
    record["published"] = testing.published(rows, "Park et al., CVPR 2019")
    save_png(sheet.grid(), output.folder / "grid.png")
    output.finish(record, own=of_paper["scores"])


if __name__ == "__main__":
    process.command(main)()
