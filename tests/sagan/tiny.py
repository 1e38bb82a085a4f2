"""How to train SAGAN tiny, for tests/contract."""

from tests.contract.papers import Paper

PAPER = Paper(
    data_flag="--data_path",
    tiny=(
        "--recipe cifar10 --g_conv_dim 2 --d_conv_dim 4 --d_steps_per_iter 2 --batch_size 8 "
        "--ema_decay 0.9"
    ),
    edit=("return F.tanh(", "return 0.5 * F.tanh("),
)
