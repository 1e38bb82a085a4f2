"""Faces with other attributes: what the trainers of StarGAN, AttGAN and STGAN show of their G, and
what edit.py draws.
"""

import numpy as np
import paddle

from attributes import edits, intensities
from shared_metrics import process
from shared_metrics.images import grid, to_uint8


class Editor:
    """A generator, and what it takes to ask it for other attributes.

    Args:
        generator: G(x, condition).
        condition: the room's function of the intensities (N, c) of the source and the target.
        about: what the checkpoint keeps: "selected_attrs", "exclusive", "choices", see attributes;
            "first", see attributes.edits; "thres_int", intensity of an attribute in training.
        test_int: intensity of an attribute that was changed.
    """

    def __init__(self, generator, condition, about, test_int=1.0):
        self.generator = generator
        self.condition = condition
        self.about = about
        self.names = about["selected_attrs"]
        self.test_int = test_int

    def edits(self, labels):
        """The labels with each attribute changed in turn: (c, N, c), see attributes.edits."""
        a = self.about
        return edits(labels, self.names, a["exclusive"], a["choices"], a["first"])

    def draw(self, x, labels, target, asked=()):
        """Faces (N, 3, S, S) with the attributes `target`, by G in eval mode; all are arrays.

        Args: x, faces with `labels`; asked, positions of the attributes that were asked for, whose
            changes have the intensity `test_int`.
        """
        kept = self.about["thres_int"]
        wanted = intensities(labels, target, asked, kept, self.test_int)
        return self.draw_intensities(x, labels, wanted)

    def draw_intensities(self, x, labels, wanted):
        """The same for intensities (N, c) that are set already."""
        source = intensities(labels, labels, (), self.about["thres_int"], self.test_int)
        condition = paddle.to_tensor(self.condition(source, wanted).astype(np.float32))
        training = self.generator.training
        self.generator.eval()
        with paddle.no_grad():
            images = self.generator(paddle.to_tensor(x), condition).numpy()
        if training:
            self.generator.train()
        return images

    def sheet(self, x, labels, back=False):
        """The faces in the first row; in each further row with an attribute changed, which the
        title names.

        Args: back, below each such row the faces changed back.
        Returns: uint8 (H, W, 3).
        """
        rows = [to_uint8(x)]
        titles = ["original"]
        for i, target in enumerate(self.edits(labels)):
            edited = self.draw(x, labels, target, [i])
            rows.append(to_uint8(edited))
            titles.append(self.names[i])
            if back:
                rows.append(to_uint8(self.draw(edited, target, labels)))
                titles.append("back")
        return grid(np.concatenate(rows), len(x), row_labels=titles)

    def fakes(self, data, number, batch_size, seed):
        """Batches of uint8 images: the first `number` faces of a data set, each with the labels of
        another, the same at every call.
        """
        others = process.rng(seed, "evaluate").permutation(len(data))
        for start in range(0, number, batch_size):
            indices = np.arange(start, min(start + batch_size, number))
            x = np.stack([data.load(i, None)[0] for i in indices])
            images = self.draw(x, data.labels[indices], data.labels[others[indices]])
            yield to_uint8(images)
