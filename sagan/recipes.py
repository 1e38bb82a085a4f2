"""The published settings of SAGAN as data; `python train.py --list_recipes` prints them.

One iteration here is `d_steps_per_iter` updates of D followed by `g_steps_per_iter` updates of G.
MMGeneration counts D updates instead, so its 500k iterations with five D updates each are the 100k
of `cifar10`. `form` names the published network (see `model.FORMS`). Every other key is a flag of
train.py of the same name.
"""

# Protocol M (MMGeneration): 50k fakes, running BN statistics; FID against the whole training set
# with the TF Inception network and its own resize; IS with Pillow's bicubic resize, logits without
# bias, ten splits.
_M = "50k fakes, FID against the whole training set, MMGeneration protocol"

# fmt: off
_COMMON = {
    "adv_loss": "hinge", "skip_relu": False, "sync_bn": False, "d_moves_stats": True, "cards": 1,
    "z_dim": 128, "g_conv_dim": 64, "d_conv_dim": 64,
    "adam_eps": 1e-8, "g_steps_per_iter": 1, "ema_decay": 0.0, "ema_start": 0,
}
_CIFAR10 = _COMMON | {
    "form": "mmgen", "imsize": 32, "crop": "center", "flip": True, "fake_labels": "uniform",
    "g_lr": 2e-4, "d_lr": 2e-4, "beta1": 0.5, "beta2": 0.999,
    "d_steps_per_iter": 5, "batch_size": 64, "iterations": 100_000,
}
_IMAGENET = _COMMON | {
    "form": "mmgen", "imsize": 128, "crop": "random", "flip": True, "fake_labels": "uniform",
    "g_lr": 1e-4, "d_lr": 4e-4, "beta1": 0.0, "beta2": 0.999,
    "d_steps_per_iter": 1, "batch_size": 64, "cards": 4, "iterations": 1_000_000,
}

_STUDIOGAN = {
    "form": "studiogan", "adam_eps": 1e-6, "skip_relu": True, "d_moves_stats": False,
}

RECIPES = {
    "sagan128": _IMAGENET | {
        "form": "sagan", "beta2": 0.9, "fake_labels": "real", "crop": "center", "flip": False,
    },
    "cifar10": _CIFAR10,
    "cifar10-inplace-relu": _CIFAR10 | {"skip_relu": True},
    "imagenet128-ndisc1": _IMAGENET | {"sync_bn": True},
    "imagenet128-biggan": _IMAGENET | {
        "form": "mmgen-biggan", "batch_size": 32, "cards": 8, "crop": "center", "flip": False,
        "ema_decay": 0.999, "ema_start": 2000,
    },
    "studiogan-cifar10": _CIFAR10 | _STUDIOGAN,
    "studiogan-imagenet128": _IMAGENET | _STUDIOGAN,
}

# What the sources print: (where it is printed, IS, FID, how it was measured). Compare within one
# protocol only.
PUBLISHED = {
    "sagan128": [
        ("paper, attention at 64x64", 52.52, 18.65,
         "50k fakes against 50k training images, TF Inception"),
        ("Atmosphere-art README, attention at 32x32", 51.6682, 18.1482,
         "50k fakes, tool and real set not stated"),
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
        ("StudioGAN, best step 920k", 29.848, 34.726,
         "50k fakes against the 50k validation images"),
        ("the same weights, MMagic", 27.367, 40.1162, _M),
    ],
}
# fmt: on


def describe_recipes():
    """The text of `--list_recipes`: each recipe's setting in three lines, then published scores."""
    lines = []
    for name, r in RECIPES.items():
        skip = "ReLU(x)" if r["skip_relu"] else "x"
        adam = f"Adam({r['beta1']}, {r['beta2']}, eps {r['adam_eps']:g})"
        rates = f"lr G {r['g_lr']:g} D {r['d_lr']:g}"
        steps = f"{r['d_steps_per_iter']} D : {r['g_steps_per_iter']} G"
        batch = f"batch {r['batch_size']} x {r['cards']} cards"
        length = f"{r['iterations']:,} iterations"
        flip = "random flip" if r["flip"] else "no flip"
        ema = f"EMA {r['ema_decay']} from {r['ema_start']}" if r["ema_decay"] else "no EMA"
        norms = ", synchronised BatchNorm" if r["sync_bn"] else ""
        norms += "" if r["d_moves_stats"] else ", G's running statistics fixed in D's updates"
        lines += [
            f"{name}: {r['imsize']} px, {r['form']} network, D's skip takes {skip}",
            f"    {r['adv_loss']} loss, {adam}, {rates}, {steps}, {batch}, {length}",
            f"    {r['crop']} crop, {flip}, labels of fakes: {r['fake_labels']}, {ema}{norms}",
        ]
        for where, inception_score, fid, how in PUBLISHED[name]:
            scores = f"IS {inception_score:g}  FID {fid:g}"
            lines.append(f"    published: {scores}  ({where}; {how})")
    return "\n".join(lines)
