"""Paddle's functions and layers in forms that its CPU runs faster, or that it differentiates twice.

Each bears the name of what it stands for and gives the same numbers (to rounding); a network of a
paper says `fast.conv2d` where it would say `F.conv2d`, and nothing else of this reaches it.
"""

import contextlib
import functools

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.amp.auto_cast import amp_state

PIXELS = 256  # of a batch, see `conv2d_of_upsampled`


def float32():
    """Context for what has to stay float32 under auto_cast too. Nothing where that is off: entering
    it takes as long as a small layer.
    """
    state = amp_state()
    on = state is not None and state["enable"]
    return paddle.amp.auto_cast(enable=False) if on else contextlib.nullcontext()


def _on_cpu(x):
    """Whether the values of a tensor, not of a program's variable, lie in the CPU's memory."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place()


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """`F.conv2d`. x (N, C, H, W), weight (O, C, k, k), bias (O,) or None -> (N, O, H', W').

    On CPU Paddle first copies C k k values for each pixel: for few outputs of many channels, as a
    generator's last layer, a transposed convolution is up to nine times as fast, which copies O k k
    in their place. Paddle's CPU differentiates that once only, see `TwiceConv2D`. In a program,
    where oneDNN computes at least 16 (AVX-512) for any, they are `_conv2d_by_rows`.
    """
    outputs, C, k, _ = weight.shape
    usual = stride in (1, [1, 1]) and isinstance(padding, int) and 0 <= padding < k
    if usual and 1 < k and 4 * outputs <= C:
        if not paddle.in_dynamic_mode():
            return _add_bias(_conv2d_by_rows(x, weight, padding), bias)
        if _on_cpu(x) and min(x.shape[2:]) >= 2 * k:
            turned = weight.flip([2, 3]).transpose([1, 0, 2, 3])  # (C, O, k, k)
            return _add_bias(F.conv2d_transpose(x, turned, padding=k - 1 - padding), bias)
    return _add_bias(F.conv2d(x, weight, stride=stride, padding=padding), bias)


def _conv2d_by_rows(x, weight, padding):
    """Convolve by each of a kernel's k rows, 1 x k, then add up, each at its row's place."""
    outputs, C, k, _ = weight.shape
    rows = weight.transpose([2, 0, 1, 3]).reshape([k * outputs, C, 1, k])
    places = np.eye(k * outputs, dtype=np.float32).reshape(k, outputs, k, outputs)
    places = places.transpose(3, 0, 1, 2).reshape(outputs, k * outputs, k, 1)
    places = paddle.to_tensor(places).astype(weight.dtype)
    return F.conv2d(F.conv2d(x, rows, padding=padding), places)


def conv2d_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0):
    """`F.conv2d_transpose`. x (N, C, H, W), weight (C, O, k, k), bias (O,) or None."""
    h = F.conv2d_transpose(x, weight, None, stride, padding, output_padding)
    return _add_bias(h, bias)


class Conv2D(nn.Conv2D):
    """`nn.Conv2D` with zero padding."""

    def forward(self, x):
        return conv2d(x, self.weight, self.bias, self._stride, self._padding)


class TwiceConv2D(nn.Conv2D):
    """`nn.Conv2D` with zero padding that is differentiated twice, whatever its sizes: for a D under
    a gradient penalty.
    """

    def forward(self, x):
        h = F.conv2d(x, self.weight, stride=self._stride, padding=self._padding)
        return _add_bias(h, self.bias)


class Conv2DTranspose(nn.Conv2DTranspose):
    """`nn.Conv2DTranspose`."""

    def forward(self, x):
        padding = (self._padding, self.output_padding)
        return conv2d_transpose(x, self.weight, self.bias, self._stride, *padding)


def _add_bias(h, bias):
    # Paddle's CPU kernel adds a bias of shape (C, 1, 1) ten times as fast as the (1, C, 1, 1) that
    # its own convolutions add; a program takes that one into the convolution.
    if bias is None:
        return h
    return h + bias.reshape([-1, 1, 1] if paddle.in_dynamic_mode() else [1, -1, 1, 1])


def upsample(x, scale_factor=2):
    """`F.upsample(x, scale_factor=k, mode="nearest")`: (N, C, H, W) -> (N, C, kH, kW).

    By tiles: on CPU five times as fast as Paddle's kernel, and differentiable twice.
    """
    _, C, H, W = x.shape
    k = scale_factor
    return x.reshape([-1, 1, W, 1]).tile([1, k, 1, k]).reshape([-1, C, k * H, k * W])


class ReflectionPad2D(nn.Layer):
    """`nn.Pad2D(width, mode="reflect")`: (N, C, H, W) -> (N, C, H + 2 width, W + 2 width)."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        # Joined of slices: Paddle's CPU pads by a kernel that takes a quarter of the time of the
        # convolution behind it.
        p = self.width
        if paddle.in_dynamic_mode() and min(x.shape[2:]) <= p:
            raise ValueError(f"{p} pixels cannot be mirrored at the edges of {x.shape}")
        for axis in (2, 3):
            before = [x.slice([axis], [i], [i + 1]) for i in range(p, 0, -1)]
            after = [x.slice([axis], [-i], [1 - i]) for i in range(2, p + 2)]
            x = paddle.concat([*before, x, *after], axis)
        return x


def conv2d_of_upsampled(x, weight, bias=None):
    """`conv2d(upsample(x), weight, bias, padding=k // 2)`, k odd: -> (N, O, 2H, 2W).

    Four of a pixel's k x k neighbours are equal at a time. It is therefore a transposed convolution
    of stride 2 with kernels of k + 1, sums of the weight's: for k = 3, 4 multiplications in place
    of 9. So it is computed in a program (`inference`, exports), and on CPU where PIXELS pass at a
    time, which pay for making these kernels. One of k = 1 comes first outside of programs, at a
    quarter of the work.
    """
    k = weight.shape[2]
    if k == 1 and paddle.in_dynamic_mode():
        return upsample(conv2d(x, weight, bias))
    if _too_few(x):
        return conv2d(upsample(x), weight, bias, padding=k // 2)
    kernels = _doubled(weight.transpose([1, 0, 2, 3]), turned=True)  # (C, O, k + 1, k + 1)
    return conv2d_transpose(x, kernels, bias, stride=2, padding=k // 2)


def pooled_conv2d(x, weight, bias=None):
    """`F.avg_pool2d(conv2d(x, weight, bias, padding=k // 2), 2)`, k odd, H and W even: (N, C, H, W)
    -> (N, O, H/2, W/2).

    Where `conv2d_of_upsampled` is a transposed convolution, this is one of stride 2, as cheap.
    """
    k = weight.shape[2]
    if _too_few(x):
        return F.avg_pool2d(conv2d(x, weight, bias, padding=k // 2), 2)
    return conv2d(x, _doubled(weight) / 4.0, bias, stride=2, padding=k // 2)


def _too_few(x):
    """Whether the pixels of a batch do not pay for `_doubled` kernels; on GPU nothing does."""
    N, _, H, W = x.shape
    return paddle.in_dynamic_mode() and not (_on_cpu(x) and N * H * W >= PIXELS)


def _doubled(weight, turned=False):
    """Kernels (k + 1) x (k + 1), each the sum of a k x k one, perhaps turned round by 180 degrees,
    at its four places there: (I, J, k, k) -> (I, J, k + 1, k + 1).
    """
    places = paddle.to_tensor(_places(weight.shape[2], turned)).astype(weight.dtype)
    kernels = paddle.matmul(weight.flatten(2), places)  # (I, J, (k + 1)^2)
    side = weight.shape[2] + 1
    return kernels.reshape([*kernels.shape[:2], side, side])


@functools.cache
def _places(k, turned):
    """(k k, (k + 1)^2), 0 or 1: where each weight of a kernel comes to lie."""
    line = np.eye(k, k + 1) + np.eye(k, k + 1, 1)
    line = line[::-1] if turned else line
    return np.kron(line, line).astype(np.float32)


def softmax(x, axis=-1):
    """`F.softmax`, of operations that Paddle differentiates twice; its own it does once only."""
    p = F.sigmoid(x - x.max(axis, keepdim=True).detach())
    e = p / (1.0 - p)  # exp(x - max): Paddle 2.6 differentiates exp itself once only
    return e / e.sum(axis, keepdim=True)


def max_pool2d(x, kernel_size):
    """`F.max_pool2d(x, k, stride=k)` likewise, H and W multiples of k.

    It is the mean of x where x is the largest of its window, times the window's area. Equal largest
    values share the gradient.
    """
    k = kernel_size
    with paddle.no_grad():
        _, C, H, W = x.shape
        windows = x.reshape([-1, H // k, k, W // k, k])
        largest = (windows == windows.max([2, 4], keepdim=True)).astype(x.dtype)
        largest = (largest / largest.sum([2, 4], keepdim=True)).reshape([-1, C, H, W])
    return F.avg_pool2d(x * largest, k) * k**2


def fold_spectral_norm(network):
    """Put W / sigma of eval mode in the place of all spectral norm in a network, for good.

    A layer of spectral norm has a parameter `weight_orig` and computes W / sigma by a method,
    `weight` or, beside plain layers with a parameter of that name, `kernel`. For networks that only
    draw: jit.save keeps plain weights then.
    """
    for layer in network.sublayers(include_self=True):
        if hasattr(layer, "weight_orig"):
            method = "weight" if hasattr(layer, "weight") else "kernel"
            layer.register_buffer("weight_folded", getattr(layer, method)().detach())
            setattr(layer, method, functools.partial(getattr, layer, "weight_folded"))
