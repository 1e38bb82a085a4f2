"""SPADE's losses (Park et al., CVPR 2019, sec. 3 and appendix A), as NVlabs' code computes them.

D's outputs are [[output of each layer, the logits last] of each scale], see model.Discriminator.
"""

import paddle.nn.functional as F

VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu1_1 ... relu5_1


def d_hinge_loss(outputs, real):
    """E max(0, 1 - D), or for fakes E max(0, 1 + D), of the logits, averaged over the scales."""
    sign = 1.0 if real else -1.0
    losses = [F.relu(1.0 - sign * scale[-1]).mean() for scale in outputs]
    return sum(losses) / len(losses)


def g_hinge_loss(outputs):
    """-E D of the fakes' logits, averaged over the scales."""
    losses = [-scale[-1].mean() for scale in outputs]
    return sum(losses) / len(losses)


def feature_loss(fake, real):
    """Feature matching (pix2pixHD, CVPR 2018, eq. 4): E |D_k(fake) - D_k(real)| summed over all
    layers but the logits, averaged over the scales. No gradient reaches real.
    """
    loss = 0.0
    for scale_fake, scale_real in zip(fake, real, strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            loss += (f - r.detach()).abs().mean()
    return loss / len(fake)


def vgg_loss(fake, real):
    """The same of VGG19's five feature maps, weighted by depth. No gradient reaches real."""
    loss = 0.0
    for weight, f, r in zip(VGG_WEIGHTS, fake, real, strict=True):
        loss += weight * (f - r.detach()).abs().mean()
    return loss


def kl_loss(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over batch and dimensions."""
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp()).sum()


def split(outputs, n):
    """D's outputs on a joined batch, fake first, as (those on the n fakes, those on the others)."""
    fake = [[h[:n] for h in scale] for scale in outputs]
    real = [[h[n:] for h in scale] for scale in outputs]
    return fake, real
