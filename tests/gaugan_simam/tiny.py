"""How to train GauGAN tiny, for tests/contract."""

from tests.contract.papers import Paper

PAPER = Paper(
    data_flag="--data_path",
    tiny="--crop_size 32 --norm_G spectralspadebatch1x1 --ngf 1 --ndf 2 --num_D 2 --n_layers_D 2 "
    "--batch_size 8 --ema_decay 0.9",
    edit=("return F.tanh(", "return 0.5 * F.tanh("),
    layout="coco_stuff",
    part="",
)
