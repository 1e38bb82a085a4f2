"""The folder of a run: one run at a time, never two runs mixed."""

from contextlib import contextmanager
from pathlib import Path

from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.outputs import lock_folders
from shared_metrics.runs import checkpoint


@contextmanager
def run_folder(args, checkpoints=None, folders=None):
    """Hold `args.output_dir` and what else a run writes, and find what `args.resume` asks for.

    Under the launcher every rank finds the same checkpoint; rank 0 alone locks and writes.
    Args: checkpoints, where the run keeps its checkpoints (default: <output_dir>/checkpoints);
        folders, {flag: folder} of what else it writes.
    Yields: (path, checkpoint dict) to go on from, or None for a new run.
    Raises: UserError when another run holds one of the folders, or when there are checkpoints that
        are not those to go on from.
    """
    folder = Path(args.output_dir)
    checkpoints = Path(checkpoints or folder / "checkpoints")
    goes_on = args.resume == "auto"
    if args.resume and not goes_on:  # a checkpoint of this very run, or its folder
        start = Path(args.resume).resolve()
        goes_on = any(start.is_relative_to(own.resolve()) for own in (folder, checkpoints))
    if not goes_on and any(checkpoints.glob("*.pdparams")):
        raise UserError(
            f"--output_dir {folder}: holds a run already, in {checkpoints}. "
            "Go on with --resume auto, or name another folder"
        )
    if not process.is_main():
        yield _resume(args, checkpoints)
        return
    with lock_folders({"--output_dir": folder, **(folders or {}), "checkpoints": checkpoints}):
        newest = _resume(args, checkpoints)
        if newest:
            _tell_differences(newest[1].get("args", {}), vars(args))
        yield newest


def _resume(args, checkpoints):
    newest = checkpoint.resume(args.resume, checkpoints)
    if newest and not getattr(args, "seed_given", True):  # then the run keeps its own
        args.seed = newest[1].get("args", {}).get("seed", args.seed)
    return newest


def _tell_differences(before, now):
    for name in sorted(now.keys() & before.keys() - {"resume", "output_dir"}):
        if now[name] != before[name]:
            change = f"was {before[name]} in the checkpoint and is {now[name]} now"
            print(shown(f"resume: --{name} {change}"), flush=True)
