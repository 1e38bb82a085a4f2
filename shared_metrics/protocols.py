"""Named ways to compute the scores: which resize, which logits, which order; a number means nothing
without its own.
"""

from dataclasses import dataclass

from shared_metrics.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """One peer's way.

    variant: resize and scaling for FID, KID and precision/recall (`features.prepare`). For IS: its
        own variant, whether
    logits have the bias, the seed that shuffles the images before they are split (None: kept in
    order), and whether the parts are of equal size (the rest unused).
    """

    name: str
    variant: str
    is_variant: str
    is_bias: bool
    is_seed: int | None
    is_equal_splits: bool


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "tf", "tf", "tf", False, 2020, False
        ),  # torch-fidelity; the FID of TTUR, StyleGAN2/3 and MMagic
        Protocol("pytorch-fid", "torch", "torch", False, 2020, False),  # pytorch-fid (it has no IS)
        Protocol("clean", "clean", "clean", False, 2020, False),  # clean-fid (it has no IS)
        Protocol("mmagic", "tf", "pil", False, None, True),  # MMGeneration and MMagic
    )
}


def get_protocol(name):
    """The `Protocol` of that name; UserError with the known names for another."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name}: unknown. Choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
