"""`--processes`: a run by several processes that share each batch, without typing the launcher."""

import os
import sys
from pathlib import Path

from shared_metrics import process
from shared_metrics.errors import UserError

ENVIRON = dict(os.environ)  # the user's, before configure_cpu and Paddle add to it


def share_batch(args):
    """Under the launcher make `args.batch_size` this process's share of what --processes shares.

    Raises: UserError where it does not divide, or where the launcher started another number.
    """
    number = args.processes
    if number == 1:
        return
    if process.launched():
        world = process.world_size()
        if number not in ("auto", world):
            raise UserError(
                f"--processes {number}: the launcher has started {world}; leave the flag out, then "
                "--batch_size is a process's own"
            )
        number = world
    if number != "auto" and args.batch_size % number:
        raise UserError(
            f"--processes {number}: cannot share a batch of {args.batch_size}; give a --batch_size "
            f"that {number} divides"
        )
    if process.launched():
        args.batch_size //= number


def launch(args, device):
    """Become paddle.distributed.launch with this command where --processes asks for several.

    It starts this command in each process; its logs lie in <output_dir>/launch. Returns where one
    is enough, as for --check_data, or the launcher is there already. auto: as many as there are
    cores and the batch allows; one on a card, which processes cannot share.
    Args: device, that was chosen.
    """
    number = args.processes
    if number == "auto":
        number = most_processes(args.batch_size) if device == "cpu" else 1
    if number == 1 or process.launched() or args.check_data:
        return
    logs = str(Path(args.output_dir) / "launch")
    each = args.batch_size // number
    print(f"{number} processes, {each} images of a batch each; their logs: {logs}", flush=True)
    module = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(number)]
    words = [*module, "--log_dir", logs, "--log_level", "WARNING", *sys.argv]
    os.execve(sys.executable, [sys.executable, *words], ENVIRON)


def most_processes(batch_size):
    """The largest number of processes, at most the usable cores, that divides a batch."""
    return max(n for n in range(1, process.usable_cores() + 1) if batch_size % n == 0)
