"""The one training loop of all judges, and the file that it writes."""

import math
import time
from pathlib import Path

import paddle

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.stop import check_finite, weight_sums
from shared_metrics.unpickle import printable

# What a file of each kind tells beside its weights, and the most that any number of it may be.
NEEDED = dict.fromkeys(
    ("classifier", "attributes"), ("imsize", "width", "classes", "mean", "std", "accuracy")
)
NEEDED["segmenter"] = ("num_classes", "width", "crop_size", "scores")
MOST = 2**16


def fit(network, data, held_out, loss, scores, args, weight_decay=0.0):
    """Train with AdamW (Loshchilov and Hutter, ICLR 2019); prints a line an epoch.

    Args:
        network: a Paddle layer; in eval mode at the end.
        data, held_out: data sets as runs.loader.Batches takes them.
        loss: function of the arrays of a batch -> its mean loss, a 0-d tensor.
        scores: function of `held_out` and a batch size -> {name: float, or {name: float}}.
        args: namespace with epochs, batch_size, lr (the highest rate), seed and num_workers.
    Returns: the scores after the last epoch.
    Raises: UserError when the data do not fill a batch, a file is bad, or the loss is not finite.
    """
    print(f"{len(data):,} pictures to train on, {len(held_out):,} held out", flush=True)
    start = time.perf_counter()
    with Batches(data, args.batch_size, args.seed, workers=args.num_workers) as batches:
        length = batches.batches_per_epoch
        rate = learning_rate(args.lr, args.epochs * length)
        optimizer = paddle.optimizer.AdamW(
            rate, parameters=network.parameters(), weight_decay=weight_decay
        )
        for epoch in range(1, args.epochs + 1):
            network.train()
            total = 0.0
            for _ in range(length):
                value = loss(*next(batches))
                optimizer.clear_grad()
                value.backward()
                optimizer.step()
                rate.step()
                total += value.detach()  # read back once an epoch: that waits for the device
            mean = float(total) / length
            sums = weight_sums(judge=network.parameters())
            check_finite({"loss": mean, **sums}, epoch * length, None)
            network.eval()
            result = scores(held_out, args.batch_size)
            seconds = time.perf_counter() - start
            print(
                f"epoch {epoch}/{args.epochs}  loss {mean:.3f}  held-out {in_words(result)}  "
                f"{epoch * length * args.batch_size / seconds:.0f} images/s  {seconds:.0f} s",
                flush=True,
            )
    return result


def learning_rate(highest, steps):
    """A schedule that rises to `highest` over a tenth of the steps, then falls as a cosine to 0.

    Paddle's LinearWarmup refuses a warm-up of one step and a rate of 0; this takes both.
    """
    warm = steps // 10

    def share(step):
        rise = (step + 1) / (warm + 1)
        fall = max(0, step - warm) / max(1, steps - warm)
        return min(rise, (1 + math.cos(math.pi * fall)) / 2)

    return paddle.optimizer.lr.LambdaDecay(highest, share)


def in_words(scores):
    """{"accuracy": 0.5} -> "accuracy 0.5000"; {"accuracy": {"Bald": 0.5}} -> "Bald 0.5000"."""
    words = []
    for name, value in scores.items():
        parts = value if isinstance(value, dict) else {name.replace("_", " "): value}
        words += [f"{part} {number:.4f}" for part, number in parts.items()]
    return ", ".join(words) or "no score"


def save(kind, network, about, scores, args):
    """Write args.output, whole or not at all: the weights under `kind`, by which the file is
    recognised, what `about` tells (plain values) and the flags.
    """
    state = {kind: checkpoint.network_state(network), **about, "args": vars(args)}
    state["format"] = checkpoint.FORMAT
    weights.save({**state, "sha256": files.digest(state)}, args.output)
    print(f"saved {args.output}: held-out {in_words(scores)}")


def load(kind, path, advice):
    """What `save` wrote. Raises: UserError naming a file that is damaged or not of this kind."""
    state = weights.load(path)
    if not isinstance(state, dict) or kind not in state:
        raise UserError(f"{path}: not a file of `python -m shared_metrics.judges {kind}`; {advice}")
    state = checkpoint.verified(state, path)
    for name in NEEDED[kind]:
        if name not in state:
            raise UserError(f"{path}: lacks {name}; train the {kind} anew")
        odd = isinstance(state[name], int) and not 1 <= state[name] <= MOST
        if odd or (name in ("mean", "std") and len(state[name]) != 3):
            raise UserError(f"{path}: its {name} cannot be {printable(state[name])}")
    return state


def about_file(path, model):
    """What records tell of a judge: the file, its sha256, its network's name."""
    return {"file": Path(path).name, "sha256": files.file_sha256(path), "model": model}
