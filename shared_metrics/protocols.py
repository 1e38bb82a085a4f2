"""Named ways to compute the scores: which resize, which logits, which order.

A number means nothing without the name of its own.
"""

from dataclasses import dataclass

from shared_metrics.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """One peer's way; "tf" is also how StyleGAN2/3 and MMagic compute FID.

    variant: resize and scaling for FID, KID and precision/recall (`features.prepare`).
    is_variant: the same for IS.
    is_bias: whether its logits have the bias.
    is_seed: shuffles the images before they are split; None keeps their order.
    is_equal_splits: parts of equal size, the rest unused.
    """

    name: str
    variant: str
    is_variant: str
    is_bias: bool
    is_seed: int | None
    is_equal_splits: bool


# fmt: off
PROTOCOLS = {
    protocol.name: protocol for protocol in (
        # name, variant, is_variant, is_bias, is_seed, is_equal_splits
        Protocol("tf", "tf", "tf", False, 2020, False),                 # torch-fidelity, TTUR
        Protocol("pytorch-fid", "torch", "torch", False, 2020, False),  # it has no IS
        Protocol("clean", "clean", "clean", False, 2020, False),        # clean-fid: it has no IS
        Protocol("mmagic", "tf", "pil", False, None, True),             # MMGeneration and MMagic
    )
}
# fmt: on


def get_protocol(name):
    """The `Protocol` of that name; UserError with the known names for another."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name}: unknown. Choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
