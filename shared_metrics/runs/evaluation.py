"""FID and Inception Score while a run goes on (`--eval_every`), and the best of each so far."""

from shared_metrics.scoring import Extractor, evaluate, read_real, statistics_of


class Evaluation:
    """Scores a generator in training against one set of real images.

    Args:
        folder: the run's folder; `real_stats.npz` there keeps the statistics of the training
            images.
        real: statistics file or image folder; "": the training images.
        inception_weights: auto, random or a file.
        eval_samples: images per evaluation.
        pictures: function that returns uint8 batches (n, H, W, 3) of the `count` training images.
        log: RunLog, which says what is compared with what.
        resumed: the run goes on, so `real_stats.npz` is its own; what an earlier run left there is
            not used.
    Raises: UserError when Inception weights or real images are missing, so before training.
    """

    def __init__(
        self, folder, real, inception_weights, eval_samples, pictures, count, log, resumed
    ):
        cached = folder / "real_stats.npz"
        reuse = resumed and cached.exists()
        source = real or (cached if reuse else "the training images, cropped from the middle")
        self.extractor = Extractor(inception_weights)
        self.number = eval_samples
        log.info(
            f"evaluation: against {source}, Inception weights: {self.extractor.info['source']}"
        )
        if real or reuse:
            self.real = read_real(source, self.extractor)
        else:
            self.real = statistics_of(pictures(), self.extractor, num_images=count, progress=True)
            self.real.save(cached)

    def score(self, batches, iteration, best):
        """Score one generator.

        Args: batches, uint8 (n, H, W, 3) arrays of `eval_samples` images in all; best, {"fid":
            {"value", ...}, ...} of this run so far, which is brought up to date.
        Returns: (values for the log, names of the scores that are the best so far).
        """
        result = evaluate(batches, self.extractor, real=self.real, num_images=self.number)
        comparable = result["comparable"]
        mark = "" if comparable else "_not_comparable"
        values = {}
        improved = []
        for name, better in (("fid", min), ("is", max)):
            value = result["scores"][name]
            values[name + mark] = value
            # An equal value is no improvement.
            if name not in best or better(value, best[name]["value"]) != best[name]["value"]:
                best[name] = {
                    "value": value,
                    "iteration": iteration,
                    "samples": self.number,
                    "comparable": comparable,
                }
                improved.append(name)
        return values, improved
