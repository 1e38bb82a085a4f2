"""The published settings of GauGAN and photopen: one row each, as data. `python train.py
--list_recipes` prints them.

Every key is a flag of train.py of the same name, but `cards`: `batch_size` is per process, the
published batch batch_size * cards. The length is `iterations`, or, where that is 0, `niter` +
`niter_decay` epochs.
"""

_COMMON = {
    "aspect_ratio": 1.0,
    "contain_dontcare_label": True,
    "no_instance": False,
    "use_vae": False,
    "z_dim": 256,
    "simam_lambda": 1e-4,
    "load_size": 0,
    "gan_mode": "hinge",
    "lambda_feat": 10.0,
    "lambda_kld": 0.05,
    "D_steps_per_G": 1,
    "redraw": True,
    "g_lr": 1e-4,
    "d_lr": 4e-4,
    "beta1": 0.0,
    "beta2": 0.9,
    "ema_decay": 0.0,
    "ema_start": 0,
    "flip": True,
}
_PHOTOPEN = _COMMON | {
    "variant": "photopen",
    "label_nc": 12,
    "crop_size": 256,
    "num_upsampling_layers": "normal",
    "norm_G": "spectralspadebatch3x3",
    "ngf": 24,
    "nef": 16,
    "ndf": 128,
    "num_D": 4,
    "n_layers_D": 6,
    "simam": True,
    "preprocess_mode": "scale_shortside_and_crop",
    "lambda_vgg": 1.6,
    "vgg_size": 224,
    "iterations": 100_000,
    "niter": 0,
    "niter_decay": 0,
    "batch_size": 4,
    "cards": 1,
}
_NVLABS = _COMMON | {
    "variant": "nvlabs",
    "label_nc": 182,
    "crop_size": 256,
    "num_upsampling_layers": "normal",
    "norm_G": "spectralspadesyncbatch3x3",
    "ngf": 64,
    "nef": 64,
    "ndf": 64,
    "num_D": 2,
    "n_layers_D": 4,
    "simam": False,
    "preprocess_mode": "resize_and_crop",
    "lambda_vgg": 10.0,
    "vgg_size": 0,
    "iterations": 0,
    "niter": 100,
    "niter_decay": 100,
    "batch_size": 4,
    "cards": 8,
}

RECIPES = {
    "gaugan": _PHOTOPEN,
    "photopen": _PHOTOPEN
    | {"g_lr": 4e-4, "d_lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "flip": False, "batch_size": 1},
    "nvlabs-coco": _NVLABS | {"niter_decay": 0},
    "nvlabs-ade20k": _NVLABS | {"label_nc": 150, "no_instance": True},
    "nvlabs-cityscapes": _NVLABS
    | {
        "label_nc": 35,
        "contain_dontcare_label": False,
        "crop_size": 512,
        "aspect_ratio": 2.0,
        "num_upsampling_layers": "more",
        "preprocess_mode": "fixed",
    },
}

ABOUT = {
    "gaugan": "photopen's networks (GELU, SimAM) with the paper's two rates; our choice: batch, "
    "length, flip",
    "photopen": "PaddleGAN's photopen as it is: G learns faster than D; its length is not "
    "published (total_iters: 1)",
    "nvlabs-coco": "the paper's networks on COCO-Stuff: 182 classes and unknown, 100 epochs",
    "nvlabs-ade20k": "the same on ADE20K: 150 classes, no edge map, 200 epochs, the rates falling "
    "from the 100th",
    "nvlabs-cityscapes": "the same on Cityscapes: 512x256 px, 35 classes, 200 epochs, the rates "
    "falling from the 100th",
}

# The paper's table 1 (CVPR 2019): score, value, how it was measured. photopen published no number.
_RECALLED = (
    "from memory, not checked against the paper"  # the others stand on public leaderboards too
)
PUBLISHED = {
    "nvlabs-coco": [
        ("miou", 0.374, f"DeepLabV2 on 5,000 generated images; the text says 0.352; {_RECALLED}"),
        ("pixel_accuracy", 0.679, f"DeepLabV2; {_RECALLED}"),
        ("fid", 22.6, "against the real validation images"),
    ],
    "nvlabs-ade20k": [
        ("miou", 0.385, "UperNet101 on 2,000 generated images"),
        ("pixel_accuracy", 0.799, f"UperNet101; {_RECALLED}"),
        ("fid", 33.9, "against the real validation images"),
    ],
    "nvlabs-cityscapes": [
        ("miou", 0.623, "DRN-D-105 on 500 generated images"),
        ("pixel_accuracy", 0.819, f"DRN-D-105; {_RECALLED}"),
        ("fid", 71.8, f"against the real validation images; {_RECALLED}"),
    ],
}


def describe_recipes():
    """The text of `--list_recipes`: what each recipe is, its setting, and the paper's numbers."""
    lines = []
    for name, r in RECIPES.items():
        height = round(r["crop_size"] / r["aspect_ratio"])
        length = f"{r['niter'] + r['niter_decay']} epochs"
        if r["iterations"]:
            length = f"{r['iterations']:,} iterations"
        unknown = " and unknown" if r["contain_dontcare_label"] else ""
        lines += [
            f"{name}: {ABOUT[name]}",
            f"    {r['crop_size']}x{height} px, {r['variant']} networks, G width {r['ngf']}, "
            f"D {r['num_D']} scales of width {r['ndf']}, {r['label_nc']} classes{unknown}",
            f"    Adam({r['beta1']}, {r['beta2']}) lr G {r['g_lr']:g} D {r['d_lr']:g}, "
            f"{r['gan_mode']}, feature matching {r['lambda_feat']:g}, VGG {r['lambda_vgg']:g}, "
            f"batch {r['batch_size']} x {r['cards']}, {length}",
        ]
        for score, value, how in PUBLISHED.get(name, []):
            lines.append(f"    published: {score} {value:g}  (paper; {how})")
    return "\n".join(lines)
