"""How well faces are edited, by the measures of StarGAN's, AttGAN's and STGAN's papers: what is
left of a face that was to stay as it is, and what a judge of attributes sees in the edited ones.
"""

import numpy as np

import attributes
from shared_metrics.errors import UserError
from shared_metrics.images import to_uint8

METRICS = ("psnr", "ssim", "accuracy", "preservation")
JUDGED = ("accuracy", "preservation")


def open_judge(path, names, metrics=()):
    """`shared_metrics.judges.attributes.AttributeClassifier` of a file, None without one.

    Args: names, attributes that it must know; metrics, those asked for.
    Raises: UserError where it does not know them, or where a metric needs a judge.
    """
    if not path:
        needing = [metric for metric in metrics if metric in JUDGED]
        if needing:
            raise UserError(
                f"--metrics {needing[0]}: needs --attribute_judge; train one by `python -m "
                "shared_metrics.judges attributes`"
            )
        return None
    from shared_metrics.judges.attributes import load_attributes

    judge = load_attributes(path)
    missing = [name for name in names if name not in judge.classes]
    if missing:
        raise UserError(
            f"--attribute_judge {path}: does not know {', '.join(missing)}; it knows "
            f"{', '.join(judge.classes)}"
        )
    return judge


def seen(judge, names, images):
    """The labels (N, c) that the judge sees in uint8 faces, float32 of 0 and 1."""
    columns = [judge.classes.index(name) for name in names]
    return (judge.predict(images)[:, columns] > 0.5).astype(np.float32)


def differences(images, others):
    """(PSNR in dB, SSIM) of each pair of uint8 faces (N, S, S, 3): arrays (N,), by scikit-image."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    psnr = []
    ssim = []
    for image, other in zip(images, others, strict=True):
        psnr.append(peak_signal_noise_ratio(image, other, data_range=255))
        ssim.append(structural_similarity(image, other, data_range=255, channel_axis=2))
    return np.array(psnr), np.array(ssim)


class Measures:
    """Gathers what `METRICS` name, as the faces come.

    psnr, ssim: of faces drawn with their own attributes, against these faces.
    accuracy: share of the edits in which the judge sees the attribute as it was to become, of those
        faces that had it otherwise; the mean over the attributes.
    preservation: share of the other attributes that the judge sees as the face's label has them.
    Args: metrics, of METRICS; names, the attributes; judge, see `open_judge`.
    """

    def __init__(self, metrics, names, judge=None):
        self.metrics = metrics
        self.names = names
        self.judge = judge
        self.psnr = []
        self.ssim = []
        self.changed = np.zeros((2, len(names)))  # edits of each attribute: seen, all
        self.kept = np.zeros((2, len(names)))  # other attributes after these edits: seen, all

    def wanted(self, *metrics):
        """Whether any of these metrics is asked for."""
        return any(metric in self.metrics for metric in metrics)

    def reconstructed(self, faces, drawn):
        """Take uint8 faces (N, S, S, 3), and what G draws of them with their own attributes."""
        psnr, ssim = differences(faces, drawn)
        self.psnr += psnr.tolist()
        self.ssim += ssim.tolist()

    def edited(self, i, drawn, labels, target, rivals=()):
        """Take uint8 faces with `labels` (N, c) that were drawn with attribute i as in `target`.

        Args: rivals, positions of the attributes that exclude it: these are no others to preserve,
            since hair that is to lose its colour takes one of theirs.
        """
        judged = seen(self.judge, self.names, drawn)
        right = judged == target
        changes = target[:, i] != labels[:, i]  # one hair colour may be asked for twice
        self.changed[:, i] += right[changes, i].sum(), changes.sum()
        others = target == labels
        others[:, [i, *rivals]] = False
        self.kept[:, i] += right[others].sum(), others.sum()

    def result(self):
        """{"scores": {metric: number}, "per_class": {attribute: {...}} where a judge was asked,
        "notes": why a metric that is asked for has no number}.
        """
        values = {}
        if self.psnr:
            values = {"psnr": float(np.mean(self.psnr)), "ssim": float(np.mean(self.ssim))}
        by_name = {}
        notes = []
        for metric, counts in (("accuracy", self.changed), ("preservation", self.kept)):
            tried = np.flatnonzero(counts[1])
            shares = counts[0, tried] / counts[1, tried]
            if len(tried):
                values[metric] = float(shares.mean())
            elif metric in self.metrics:
                what = "to change" if metric == "accuracy" else "to keep"
                notes.append(f"no {metric}: none of these faces has an attribute {what}")
            for i, share in zip(tried, shares.tolist(), strict=True):
                by_name.setdefault(self.names[i], {})[metric] = share
        scores = {name: value for name, value in values.items() if name in self.metrics}
        result = {"scores": scores, "notes": notes}
        if self.wanted(*JUDGED):
            result |= {"per_class": by_name, "judge": self.judge.info}
        return result


def measure(measures, editor, x, labels):
    """Let `Measures` take a batch of faces."""
    if measures.wanted("psnr", "ssim"):
        measures.reconstructed(to_uint8(x), to_uint8(editor.draw(x, labels, labels)))
    if not measures.wanted(*JUDGED):
        return
    own = len(measures.names)
    for i, target in enumerate(editor.edits(labels)[:own]):
        drawn = to_uint8(editor.draw(x, labels, target, [i]))
        names = measures.names
        rivals = attributes.rivals(names[i], names, editor.about["exclusive"])
        measures.edited(i, drawn, labels[:, :own], target[:, :own], rivals)


def quality(editor, judge, x, labels):
    """{"judge_accuracy", "judge_preservation"} of faces (N, 3, S, S) with each attribute changed in
    turn, see `Measures`: numbers for the log that stand still where attributes do.
    """
    measures = Measures(JUDGED, editor.own_names, judge)
    measure(measures, editor, x, labels)
    return {f"judge_{name}": value for name, value in measures.result()["scores"].items()}
