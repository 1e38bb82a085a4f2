"""Adding up what several processes have gathered, over Paddle's process group
(`process.init_distributed`).
"""

import numpy as np
import paddle

from shared_metrics.inception import FEATURES


def add_up(array):
    """The float64 array's sum over all processes; every one of them calls this, with the same
    shape.
    """
    tensor = paddle.to_tensor(np.ascontiguousarray(array, np.float64))
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def gather_rows(rows, share):
    """The rows (n, D) of all processes, n differing between them, joined in the order of the
    processes; float64.
    """
    index, processes = share
    counts = np.zeros(processes)
    counts[index] = len(rows)
    counts = add_up(counts).astype(int)
    joined = np.zeros((counts.sum(), rows.shape[1]))
    joined[counts[:index].sum() :][: len(rows)] = rows
    return add_up(joined) if len(joined) else joined


def join_statistics(stats, share):
    """Put the sum over all processes in place of this one's `Statistics`."""
    number, total, outer = stats.sums()
    if total is None:
        total, outer = np.zeros(FEATURES), np.zeros((FEATURES, FEATURES))
    numbers, features = stats.kept
    if stats.keep:
        features = np.zeros((0, FEATURES), np.float32) if features is None else features
        numbers = gather_rows(numbers[:, None], share)[:, 0].astype(np.int64)
        features = gather_rows(features, share).astype(np.float32)
    stats.replace(
        int(add_up(np.array([number]))[0]), add_up(total), add_up(outer), (numbers, features)
    )
