"""AttGAN's losses (He et al., TIP 2019, sec. 3)."""

import paddle
import paddle.nn.functional as F

GAN_MODES = ("wgan", "lsgan", "dcgan")


def d_adversarial_loss(real, fake, gan_mode):
    """D's adversarial loss on its outputs (N, 1) for real and fake images.

    wgan: E D(fake) - E D(real). lsgan: E (D(real) - 1)^2 + E D(fake)^2. dcgan, s the logistic
    function: -E log s(D(real)) - E log(1 - s(D(fake))).
    """
    if gan_mode == "wgan":
        return fake.mean() - real.mean()
    if gan_mode == "lsgan":
        return (real - 1.0).square().mean() + fake.square().mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def g_adversarial_loss(fake, gan_mode):
    """G's: wgan: -E D(fake). lsgan: E (D(fake) - 1)^2. dcgan: -E log s(D(fake))."""
    if gan_mode == "wgan":
        return -fake.mean()
    if gan_mode == "lsgan":
        return (fake - 1.0).square().mean()
    return F.softplus(-fake).mean()


def classification_loss(logits, labels):
    """Binary cross-entropy of the attributes, mean over all entries; logits, labels (N, c), the
    labels 0 and 1.
    """
    return F.binary_cross_entropy_with_logits(logits, labels)


def reconstruction_loss(real, reconstructed):
    """E |x - G(x) with x's own attributes|, mean over all entries."""
    return (real - reconstructed).abs().mean()


def gradient_penalty(D, real, other, alpha):
    """E (|grad D(x)| - 1)^2 at x = real + alpha (other - real) (Gulrajani et al., 2017).

    Args: other (N, 3, S, S), the fakes (wgan), or `perturbed` real images (lsgan, dcgan);
        alpha (N, 1, 1, 1) in [0, 1].
    """
    x = (real + alpha * (other - real)).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x)[0].sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()


def perturbed(real, noise):
    """real + 0.5 std(real) noise, the standard deviation of the whole batch, noise (N, 3, S, S)
    uniform in [0, 1]: the other end of DRAGAN's penalty (Kodali et al., 2017).
    """
    return real + 0.5 * real.std(unbiased=False) * noise
