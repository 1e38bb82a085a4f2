"""Faces with other attributes: what the trainers of StarGAN, AttGAN and STGAN show of their G, and
what test.py draws (edit.py).
"""

from functools import partial

import numpy as np

import attributes
from lists import readable
from shared_metrics import process
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import Runner, run_layer


class Editor:
    """A generator, and what it takes to ask it for other attributes.

    Args:
        generator: G(x, condition).
        condition: the room's function of the intensities (N, c) of the source and the target.
        about: what the checkpoint keeps: "selected_attrs", "exclusive", "choices", see attributes;
            "first", see attributes.edits; "thres_int", intensity of an attribute in training.
        test_int: intensity of an attribute that was changed.
        run: `inference.Runner` of a generator that no longer learns (default: its layers).
    Attributes: names, of all attributes; own_names, of those that the faces at hand can have.
    """

    def __init__(self, generator, condition, about, test_int=1.0, run=None):
        self.generator = generator
        self.run = run or partial(run_layer, generator)
        self.condition = condition
        self.about = about
        self.names = about["selected_attrs"]
        self.own_names = self.names[: about["first"] or None]
        self.test_int = test_int

    # ---- labels ----

    def edits(self, labels):
        """The labels with each attribute changed in turn: (c, N, c), see attributes.edits."""
        a = self.about
        return attributes.edits(labels, self.names, a["exclusive"], a["choices"], a["first"])

    def positions(self, names, flag):
        """Where these attributes stand. Raises: UserError naming the flag and an unknown one."""
        return attributes.columns_of(list(names), self.names, "the file", flag)

    def with_values(self, labels, values):
        """Labels with the attributes of {name: 0 or 1}, and without what these exclude."""
        for name, value in values.items():
            how = (self.names, self.about["exclusive"])
            labels = attributes.with_attribute(labels, name, value, *how)
        first = self.about["first"]
        if first:
            second = any(self.names.index(name) >= first for name in values)
            labels = attributes.in_one_set(labels, second, first, len(self.names))
        return labels

    # ---- pictures ----

    def intensities(self, labels, target, positions=()):
        """See attributes.intensities."""
        strengths = (self.about["thres_int"], self.test_int)
        return attributes.intensities(labels, target, positions, *strengths)

    def draw(self, x, labels, target, positions=()):
        """Faces (N, 3, S, S) with the attributes `target`, by G in eval mode; all are arrays.

        Args: x, faces with `labels`; positions, of the attributes that are to change, which are
            told with the intensity `test_int`.
        """
        return self.draw_entries(x, labels, self.intensities(labels, target, positions))

    def draw_entries(self, x, labels, entries):
        """The same for the target's intensities (N, c)."""
        source = self.intensities(labels, labels)
        condition = self.condition(source, entries).astype(np.float32)
        training = self.generator.training
        if training:  # else BatchNorm works as whoever asks has set it
            self.generator.eval()
        images = self.run(x, condition)
        if training:
            self.generator.train()
        return images

    def draw_values(self, x, labels, values):
        """The same with the attributes of {name: 0 or 1} as they say, all others as they are."""
        positions = [self.names.index(name) for name in values]
        return self.draw(x, labels, self.with_values(labels, values), positions)

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

    def slide(self, x, labels, values, points):
        """A row a face: as it is, then with the attributes of {name: 0 or 1} told at each of these
        intensities, with the sign turned for those that are to lack. Returns: uint8 (H, W, 3).
        """
        columns = [to_uint8(x)]
        for point in points:
            # Beyond 0 the attribute is there, and what it excludes is not.
            signs = {name: int((value == 1) == (point > 0)) for name, value in values.items()}
            target = self.with_values(labels, signs)
            entries = self.intensities(labels, target)
            for name, value in values.items():
                entries[:, self.names.index(name)] = point if value else -point
            columns.append(to_uint8(self.draw_entries(x, labels, entries)))
        cells = np.stack(columns, 1)  # (faces, columns, S, S, 3)
        titles = ["original", *(f"{point:g}" for point in points)]
        return grid(cells.reshape(-1, *cells.shape[2:]), len(titles), column_labels=titles)

    def fakes(self, data, number, batch_size, seed, skip_bad=False):
        """Batches of uint8 images: the first `number` faces of a data set, each with the labels of
        another, the same at every call; without those that cannot be read where `skip_bad`.
        """
        others = process.rng(seed, "evaluate").permutation(len(data))
        how = (self.condition, self.about, self.test_int)
        editor = Editor(self.generator, *how, run=Runner(self.generator))
        for start in range(0, number, batch_size):
            part = range(start, min(start + batch_size, number))
            items = dict(readable(data, part, skip_bad))
            if not items:
                continue
            indices = np.array(list(items))
            x = np.stack([image for image, _ in items.values()])
            images = editor.draw(x, data.labels[indices], data.labels[others[indices]])
            yield to_uint8(images)
