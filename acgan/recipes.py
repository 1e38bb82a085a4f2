"""The published settings of AC-GAN as data; `python train.py --list_recipes` prints them.

Every key is a flag of train.py of the same name. `niter` counts epochs; `iterations`, where it is
not 0, overrides it.
"""

# fmt: off
_PAPER = {
    "form": "callifrey", "imsize": 128, "nz": 110, "ngf": 64, "ndf": 64, "flip": False,
    "fc_relu": True, "init": "normal", "dropout": 0.5, "activation_noise": 0.0,
    "class_loss": "cross_entropy", "class_on": "both",
    "lr": 2e-4, "g_lr": None, "d_lr": None, "beta1": 0.5, "beta2": 0.999,
    "batch_size": 100, "niter": 500, "iterations": 0, "ema_decay": 0.0, "ema_start": 0,
}
# fmt: on
_CLVRAI = _PAPER | {"form": "clvrai", "fc_relu": False, "init": "clvrai", "class_loss": "linear"}

RECIPES = {
    "imagenet128": _PAPER,
    "imagenet64": _PAPER | {"imsize": 64},
    "cifar10": _PAPER | {"imsize": 32},
    "paper-imagenet128": _PAPER | {"niter": 0, "iterations": 50_000},
    "callifrey": _PAPER | {"fc_relu": False, "init": "paddle", "class_loss": "linear"},
    "clvrai-imagenet": _CLVRAI,
    "clvrai-cifar10": _CLVRAI | {"imsize": 32},
}

# fmt: off
ABOUT = {
    "imagenet128":
        "the paper's losses and initialisation in Callifrey's 128 px networks, Callifrey's length",
    "imagenet64": "the same at 64 px",
    "cifar10": "the same at 32 px",
    "paper-imagenet128":
        "the same for the paper's 50,000 batches of each of the 100 groups of ten classes",
    "callifrey":
        "Callifrey/ACGAN-Paddle as it is: no ReLU after fc1, Paddle's initialisers, "
        "NLL loss on softmax",
    "clvrai-imagenet": "clvrai/ACGAN-PyTorch, its README's command",
    "clvrai-cifar10": "clvrai/ACGAN-PyTorch with --dataset cifar10",
}

# What the paper prints (neither reproduction measured anything): score, value, how it was measured.
_IMAGENET = [
    ("class_accuracy", 0.101,
     "128 px, Inception-v3 over 1000 classes, +- 0.020, 100 models of ten classes"),
    ("class_accuracy_64", 0.070, "the same samples resized to 64 px, +- 0.020"),
    ("class_accuracy_32", 0.050, "the same samples resized to 32 px, +- 0.020"),
    ("classes_below_msssim_0.25", 0.847,
     "classes whose MS-SSIM is below 0.25, the least diverse real class's"),
]
# fmt: on
_CIFAR10 = [("is", 8.25, "+- 0.07, best of 27 settings, 25,000 samples in 5 groups, TF Inception")]
PUBLISHED = {"imagenet128": _IMAGENET, "paper-imagenet128": _IMAGENET, "cifar10": _CIFAR10}


def describe_recipes():
    """The text of `--list_recipes`: what each recipe is, its setting, and the paper's numbers."""
    lines = []
    for name, r in RECIPES.items():
        size = f"{r['imsize']} px"
        fc1 = f"fc1 {'with' if r['fc_relu'] else 'without'} ReLU"
        adam = f"Adam({r['beta1']}, {r['beta2']}) lr {r['lr']:g}"
        length = f"{r['iterations']:,} iterations" if r["iterations"] else f"{r['niter']} epochs"
        lines += [
            f"{name}: {ABOUT[name]}",
            f"    {size}, {r['form']} networks, {fc1}, init {r['init']}, "
            f"class loss {r['class_loss']}, {adam}, batch {r['batch_size']}, {length}",
        ]
        for score, value, how in PUBLISHED.get(name, []):
            lines.append(f"    published: {score} {value:g}  (paper; {how})")
    return "\n".join(lines)
