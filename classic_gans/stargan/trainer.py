"""StarGAN's losses (Choi et al., CVPR 2018, sec. 3)."""

import paddle
import paddle.nn.functional as F


def classification_loss(logits, labels):
    """-log D_cls(c | x) (eq. 2, 3): binary cross-entropies, summed over the attributes and averaged
    over the batch. logits and labels (N, c).
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    return loss / logits.shape[0]


def class_loss(logits, labels):
    """The same of one-hot labels (RaFD's expressions): softmax cross-entropy, the batch's mean."""
    return F.cross_entropy(logits, labels, soft_label=True)


def reconstruction_loss(real, reconstructed):
    """E |x - G(G(x, c), c')|, mean over all entries (eq. 4)."""
    return (real - reconstructed).abs().mean()


def gradient_penalty(D, real, fake, alpha):
    """E (|grad D_src(x_hat)| - 1)^2 at x_hat = alpha real + (1 - alpha) fake (eq. 8).

    Args: real, fake (N, 3, S, S); alpha (N, 1, 1, 1) in [0, 1].
    """
    x = (alpha * real + (1.0 - alpha) * fake).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x)[0].sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()
