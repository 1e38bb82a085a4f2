"""Draw images from a trained SAGAN and score them.

cd sagan && python test.py --pretrained_model PATH --seeds 0-15
"""

import dataclasses
from functools import partial

import numpy as np

from dataset import ClassFolder, center_crops
from recipes import PUBLISHED, RECIPES
from shared_metrics import films, process, testing
from shared_metrics.class_folders import refuse_others
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    CHANNELS,
    CLASSES,
    PX,
    new_parser,
    original_words,
    positive,
    ranges_or_none,
)
from shared_metrics.images import save_png

ORIGINAL = {
    "--test_path": "--output_dir",
    "--batch_size_test": "--batch_size",
    "--manual_seed": "--seed",
}
NUM_SAMPLES = 50_000
NEEDS = {"standing_batches": "bn_stats standing"}  # see shared_metrics.needs
METRICS = ("acc",)  # beside those of Inception and EfficientNet


# fmt: off
def parser():
    """The flags of test.py."""
    p = new_parser(__doc__, "python test.py --pretrained_model PATH [flags; --help lists them]")
    testing.weight_flags(p, bn_stats=["running", "standing", "batch"])
    p.add_argument("--standing_batches", type=positive, default=16,
                   help="for --bn_stats standing: averaged anew over so many batches")
    testing.drawing_flags(p, batch_size=64)
    testing.record_flags(p, num_samples=NUM_SAMPLES, metrics="acc,",
                         real="image folder or statistics file of the real images")
    add = p.add_argument_group("classes").add_argument
    testing.label_flag(add)
    films.film_flag(add)
    add("--test_data_path", default="",
        help="class folders: to name the classes, for acc of real images too, and for --labels "
             "data, then the default")
    add = p.add_argument_group("class accuracy").add_argument
    testing.accuracy_flags(add)
    add = p.add_argument_group("for bare weights, which do not tell their shape").add_argument
    add("--recipe", default="sagan128", choices=list(RECIPES), help="that they were trained by")
    add("--imsize", type=PX, help="side of the images, if not the recipe's")
    add("--z_dim", type=CHANNELS, help="length of the latent vector, if not the recipe's")
    add("--g_conv_dim", type=CHANNELS, help="base width of G, if not the recipe's")
    add("--g_attention", type=ranges_or_none, help="resolutions with attention, e.g. 32 or none")
    add("--num_classes", type=CLASSES.or_0, default=0, help="expected number; 0: the file's")

    original_words(p, ORIGINAL)
    add = p.add_argument_group("of the original: what became one of the flags above").add_argument
    add("--disable_cuda", action="store_true", help="--device cpu")
    add("--state_dict_or_model", default="state_dict", choices=["state_dict", "model"],
        help="what --pretrained_model holds: Paddle has state dicts only")
    return p
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace, the original's words turned into ours."""
    p = parser()
    p.set_defaults(labels="")
    args = testing.parse(p, argv, NEEDS, stands_for={"disable_cuda": "device cpu"})
    if args.state_dict_or_model == "model":
        raise UserError(
            "--state_dict_or_model model: Paddle cannot save whole models; give a file of weights"
        )
    args.labels = args.labels or ("data" if args.test_data_path else "uniform")
    args.num_samples = args.num_samples or NUM_SAMPLES
    return args


def load_generator(state, args):
    """(G in eval mode, "ema" or "raw") of the dict that convert.py reads."""
    from model import Generator
    from shared_metrics import weights

    arrays, kind = testing.generator_weights(state, args.use_ema, args.pretrained_model)
    arch = architecture_of(state, args)
    make = partial(Generator, dataclasses.replace(arch, init="xavier"))  # quick, and not kept
    generator = weights.build(make, arrays, "generator", args.pretrained_model)
    generator.eval()
    return generator, kind


def architecture_of(state, args):
    """The architecture that the file names; for bare weights the recipe's with the flags given and
    G's classes.
    """
    from model import Architecture, architecture

    if "architecture" in state:
        arch = Architecture.from_dict(state["architecture"])
        if args.num_classes not in (0, arch.num_classes):
            raise UserError(
                f"--num_classes {args.num_classes}: {args.pretrained_model} knows "
                f"{arch.num_classes} classes"
            )
        for name in ("imsize", "z_dim", "g_conv_dim", "g_attention"):
            value = getattr(args, name)
            own = getattr(arch, name)
            if value is not None and value != (list(own) if name == "g_attention" else own):
                raise UserError(
                    f"--{name} {value}: {args.pretrained_model} tells its own, {own}; leave it out"
                )
        return arch
    tables = [
        value
        for key, value in state["generator"].items()
        if key.startswith("block1.cond_bn1.") and value.ndim == 2  # (classes, channels)
    ]
    if not tables:
        raise UserError(
            f"--pretrained_model {args.pretrained_model}: no class table block1.cond_bn1.*; not "
            "SAGAN weights"
        )
    recipe = RECIPES[args.recipe]
    widths = {
        "z_dim": args.z_dim or recipe["z_dim"],
        "g_conv_dim": args.g_conv_dim or recipe["g_conv_dim"],
    }
    if args.g_attention is not None:
        widths["g_attention"] = args.g_attention
    imsize = args.imsize or recipe["imsize"]
    return architecture(recipe["form"], imsize, len(tables[0]), **widths)


def set_bn_stats(generator, mode, arch, batches, batch_size):
    """Set G to eval mode with the BatchNorm statistics of `mode`.

    running: those kept in training. batch: each batch's own. standing: the plain mean over
        `batches` fresh batches of random latents and uniform labels (Brock et al., ICLR 2019,
        appendix E). Spectral norm's u and v never move.
    """
    import paddle

    testing.set_bn_stats(generator, "running" if mode == "running" else "batch")
    if mode != "standing":
        return
    rng = process.rng(0, "standing")
    with paddle.no_grad():
        for k in range(batches):
            for layer in generator.sublayers():
                if isinstance(layer, paddle.nn.BatchNorm2D):
                    layer._momentum = k / (k + 1)  # what Paddle keeps of the old: a running mean
            z = rng.standard_normal((batch_size, arch.z_dim), dtype=np.float32)
            labels = rng.integers(arch.num_classes, size=batch_size)
            generator(paddle.to_tensor(z), paddle.to_tensor(labels))
    generator.eval()


def choose_images(args, num_classes, names):
    """(class names, seeds, labels) of the images to draw; no names where nothing tells them."""
    data = None
    if args.test_data_path:
        flag = "--test_data_path"
        data = ClassFolder(args.test_data_path, imsize=1, flag=flag, any_folders=bool(names))
        names = names or data.classes
        refuse_others(data.classes, names, f"{flag} {args.test_data_path}", exactly=True)
    counts = np.ones(num_classes)  # uniform labels keep the draws that earlier records are made of
    if args.labels == "data":
        counts = data.counts if data else None
    return names, *testing.choose_labels(args, num_classes, names, counts)


def open_class_accuracy(args, metrics, arch, names, number):
    """`ClassAccuracy` that has judged the real images of --test_data_path, at most `number`; None
    without acc.
    """
    from shared_metrics.judges.accuracy import Classes, open_accuracy

    indices = list(range(arch.num_classes))
    classes = Classes(arch.num_classes, names, indices, total=arch.num_classes)
    accuracy = open_accuracy(args, metrics, classes, arch.imsize)
    if accuracy and args.test_data_path:
        data = ClassFolder(args.test_data_path, arch.imsize, any_folders=True)
        crops = partial(center_crops, imsize=arch.imsize)
        accuracy.update_real(data.files, data.labels, crops, most=number)
    return accuracy


def main(argv=None):
    """Draw, write, score, record."""
    args = parse_args(argv)
    testing.begin(args)
    from convert import read_weights
    from shared_metrics.inference import Runner

    output = testing.Output(args, data=[args.real, args.test_data_path])
    own, metrics = testing.chosen_metrics(args, METRICS)
    state = read_weights(args.pretrained_model, ema=None if args.use_ema else False)
    generator, kind = load_generator(state, args)
    arch = generator.arch
    classes = state.get("classes", [])
    classes, seeds, labels = choose_images(args, arch.num_classes, classes)
    run = Runner(generator, pixels=len(seeds) * arch.imsize**2)
    crops = partial(center_crops, imsize=arch.imsize)  # real images as in training
    accuracy = open_class_accuracy(args, own, arch, classes, len(seeds))
    scores = testing.open_scores(args, metrics, len(seeds), pictures=crops, known=classes)

    def name(label):
        return classes[label] if classes else str(label)

    def picture(z, labels):
        return testing.pixels(run(z, labels), args.pretrained_model)

    set_bn_stats(generator, args.bn_stats, arch, args.standing_batches, args.batch_size)
    gallery = testing.Gallery(labels=labels)
    with output:
        for part in testing.parts(len(seeds), args.batch_size):
            z = testing.latents(seeds[part], arch.z_dim)
            images = picture(z, labels[part])
            output.write(testing.file_names(seeds[part], labels[part]), images)
            scores.update(images)
            if accuracy:
                accuracy.update(images, labels[part])
            gallery.update(images, labels[part])

    recipe = None if "source" in state else args.recipe
    judged = accuracy.result(name) if accuracy else {"scores": {}}
    record = testing.make_record(
        args, state, generator, kind, RECIPES, scores.result(), judged, recipe
    )
    record["samples"] |= testing.about_seeds(args, seeds, labels)
    record |= {"paper": "sagan", "classes": classes, "published": []}
    for where, inception_score, fid, how in PUBLISHED.get(record["recipe"], []):
        rows = [("is", inception_score, how), ("fid", fid, how)]
        record["published"] += testing.published(rows, where)
    save_png(gallery.grid(name), output.folder / "grid.png")
    latents = partial(testing.latents, z_dim=arch.z_dim)
    films.write_film(args, output.folder, seeds, latents, picture, np.array(gallery.rows()))
    output.finish(record, own=judged["scores"])


if __name__ == "__main__":
    process.command(main)()
