"""The files of a data set, in order, at little more memory than their names take."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class FileList(Sequence):
    """A fixed sequence of paths; each Path is made when it is asked for.

    Every process of a training holds the names of its whole data set: as bytes in a row some 40 a
    file, where a Path takes 350. `of` and `joined` make them.
    Args: folders, what names start from; text, the names, each after the one before; of each file
        which, the number of its folder, and the start and length of its name in the text.
    """

    folders: tuple
    text: bytes
    which: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, folder, names):
        """Files of a folder. Args: names, strings, from the folder on, with "/" between folders."""
        text = bytearray()
        lengths = array("i")
        for name in names:
            encoded = os.fsencode(name)
            text += encoded
            lengths.append(len(encoded))
        lengths = np.array(lengths, np.int32)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        return cls((Path(folder),), bytes(text), np.zeros_like(lengths), starts, lengths)

    @classmethod
    def joined(cls, lists):
        """The files of several lists, one after another."""
        lists = [cls.of("", []), *lists]
        folders = tuple(folder for part in lists for folder in part.folders)
        text = b"".join(part.text for part in lists)
        which = []
        starts = []
        folder = start = 0  # of the list at hand among all
        for part in lists:
            which.append(part.which + np.int32(folder))
            starts.append(part.starts + start)
            folder += len(part.folders)
            start += len(part.text)
        lengths = np.concatenate([part.lengths for part in lists])
        return cls(folders, text, np.concatenate(which), np.concatenate(starts), lengths)

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, index):
        """The Path of a number; a FileList of a slice or an array of numbers."""
        if isinstance(index, (slice, np.ndarray)):
            chosen = [values[index] for values in (self.which, self.starts, self.lengths)]
            return FileList(self.folders, self.text, *chosen)
        return Path(self.folders[self.which[index]], self.name(index))

    def __eq__(self, other):
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def name(self, index):
        """The name of one file, from its folder on."""
        start = self.starts[index]
        return os.fsdecode(self.text[start : start + self.lengths[index]])

    def names(self):
        """Yield the names."""
        return map(self.name, range(len(self)))
