"""The moving average of a generator's weights."""

import paddle


def ema_update(average, generator, decay):
    """average <- decay * average + (1 - decay) * generator, over the trained weights.

    BatchNorm's statistics and spectral norm's u, v are copied.
    """
    trainable = {name for name, p in generator.named_parameters() if not p.stop_gradient}
    source = generator.state_dict()
    # In place: copies of all weights at every step would be most of its time.
    with paddle.no_grad():
        for name, value in average.state_dict().items():
            if name in trainable:
                value.scale_(decay)
                value.add_(source[name] * (1.0 - decay))
            else:
                paddle.assign(source[name], output=value)
