"""How to train AC-GAN tiny, for tests/contract."""

from tests.contract.papers import Paper

PAPER = Paper(
    data_flag="--dataroot",
    tiny=(
        "--recipe cifar10 --ngf 4 --ndf 4 --nz 16 --batch_size 8 --ema_decay 0.9 "
        "--activation_noise 0.1"
    ),
    edit=("return F.tanh(", "return 0.5 * F.tanh("),
)
