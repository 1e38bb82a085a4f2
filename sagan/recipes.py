"""The published settings of SAGAN: one row each, as data. `python train.py --list_recipes` prints
them.

One iteration here is `d_steps_per_iter` updates of D followed by `g_steps_per_iter` updates of G.
MMGeneration counts D updates instead, so its 500k iterations with five D updates each are the 100k
of `cifar10`. `form` names the published network (see `model.FORMS`). Every other key is a flag of
train.py of the same name.
"""

# Protocol M (MMGeneration): 50k fakes, running BN statistics; FID against the whole training set
# with the TF Inception network and its own resize; IS with Pillow's bicubic resize, logits without
# bias, ten splits.
_M = "50k fakes, FID against the whole training set, MMGeneration protocol"

_COMMON = {
    "adv_loss": "hinge",
    "z_dim": 128,
    "g_conv_dim": 64,
    "d_conv_dim": 64,
    "adam_eps": 1e-8,
    "g_steps_per_iter": 1,
    "ema_decay": 0.0,
    "ema_start": 0,
    "sync_bn": False,
    "skip_relu": False,
    "cards": 1,
}
_CIFAR10 = _COMMON | {
    "form": "mmgen",
    "imsize": 32,
    "g_lr": 2e-4,
    "d_lr": 2e-4,
    "beta1": 0.5,
    "beta2": 0.999,
    "d_steps_per_iter": 5,
    "batch_size": 64,
    "iterations": 100_000,
    "fake_labels": "uniform",
    "crop": "center",
    "flip": True,
}
_IMAGENET = _COMMON | {
    "form": "mmgen",
    "imsize": 128,
    "g_lr": 1e-4,
    "d_lr": 4e-4,
    "beta1": 0.0,
    "beta2": 0.999,
    "d_steps_per_iter": 1,
    "batch_size": 64,
    "cards": 4,
    "iterations": 1_000_000,
    "fake_labels": "uniform",
    "crop": "random",
    "flip": True,
}

RECIPES = {
    "sagan128": _IMAGENET
    | {"form": "sagan", "beta2": 0.9, "fake_labels": "real", "crop": "center", "flip": False},
    "cifar10": _CIFAR10,
    "cifar10-inplace-relu": _CIFAR10 | {"skip_relu": True},
    "imagenet128-ndisc1": _IMAGENET | {"sync_bn": True},
    "imagenet128-biggan": _IMAGENET
    | {
        "form": "mmgen-biggan",
        "batch_size": 32,
        "cards": 8,
        "crop": "center",
        "flip": False,
        "ema_decay": 0.999,
        "ema_start": 2000,
    },
    "studiogan-cifar10": _CIFAR10 | {"form": "studiogan", "adam_eps": 1e-6, "skip_relu": True},
    "studiogan-imagenet128": _IMAGENET | {"form": "studiogan", "adam_eps": 1e-6, "skip_relu": True},
}

# What the sources print: (where it is printed, IS, FID, how it was measured). Compare within one
# protocol only.
PUBLISHED = {
    "sagan128": [
        (
            "paper, attention at 64x64",
            52.52,
            18.65,
            "50k fakes against 50k training images, TF Inception",
        ),
        (
            "Atmosphere-art README, attention at 32x32",
            51.6682,
            18.1482,
            "50k fakes, tool and real set not stated",
        ),
    ],
    "cifar10": [
        ("MMagic, best IS", 9.3217, 10.5030, _M),
        ("MMagic, best FID", 9.3174, 9.4252, _M),
    ],
    "cifar10-inplace-relu": [
        ("MMagic, best IS", 9.2286, 11.7760, _M),
        ("MMagic, best FID", 9.2061, 10.7781, _M),
    ],
    "imagenet128-ndisc1": [
        ("MMagic, best IS", 31.5938, 36.7712, _M),
        ("MMagic, best FID", 28.4936, 34.7838, _M),
    ],
    "imagenet128-biggan": [("MMagic, best IS and FID", 69.5350, 12.8295, _M + ", EMA generator")],
    "studiogan-cifar10": [
        ("StudioGAN, best step 90k", 8.680, 14.009, "10k fakes against the 10k test images"),
        ("the same weights, MMagic", 9.116, 10.2011, _M),
    ],
    "studiogan-imagenet128": [
        (
            "StudioGAN, best step 920k",
            29.848,
            34.726,
            "50k fakes against the 50k validation images",
        ),
        ("the same weights, MMagic", 27.367, 40.1162, _M),
    ],
}


def describe_recipes():
    """The text of `--list_recipes`: each recipe's setting in two lines, then its published
    scores.
    """
    lines = []
    for name, r in RECIPES.items():
        ema = f"EMA {r['ema_decay']} from {r['ema_start']}" if r["ema_decay"] else "no EMA"
        lines += [
            f"{name}: {r['imsize']} px, {r['form']} network, D's skip takes "
            f"{'ReLU(x)' if r['skip_relu'] else 'x'}",
            f"    {r['adv_loss']} loss, Adam({r['beta1']}, {r['beta2']}, eps {r['adam_eps']:g}), "
            f"lr G {r['g_lr']:g} D {r['d_lr']:g}, {r['d_steps_per_iter']} D : "
            f"{r['g_steps_per_iter']} G, "
            f"batch {r['batch_size']} x {r['cards']} cards, {r['iterations']:,} iterations",
            f"    {r['crop']} crop, {'random flip' if r['flip'] else 'no flip'}, labels of fakes: "
            f"{r['fake_labels']}, "
            f"{ema}{', synchronised BatchNorm' if r['sync_bn'] else ''}",
        ]
        lines += [
            f"    published: IS {i:g}  FID {f:g}  ({where}; {how})"
            for where, i, f, how in PUBLISHED[name]
        ]
    return "\n".join(lines)
