"""The folder of a run: one run at a time, never two runs mixed."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.outputs import lock_folders
from shared_metrics.runs import checkpoint
from shared_metrics.runs.peers import from_main


@contextmanager
def run_folder(args, checkpoints=None, folders=None):
    """Hold `args.output_dir` and what else a run writes, and find what `args.resume` asks for.

    Rank 0 alone looks at its disk, locks and writes; the others are given what it has read.
    Args: checkpoints, where the run keeps its checkpoints (default: <output_dir>/checkpoints);
        folders, {flag: folder} of what else it writes.
    Yields: (path, checkpoint dict) to go on from, or None for a new run.
    Raises: UserError when another run holds one of the folders, or when there are checkpoints that
        are not those to go on from, a log, or pictures of another run.
    """
    folder = Path(args.output_dir)
    checkpoints = Path(checkpoints or folder / "checkpoints")
    goes_on = args.resume == "auto"
    if args.resume and not goes_on:  # a checkpoint of this very run, or its folder
        start = Path(args.resume).resolve()
        goes_on = any(start.is_relative_to(own.resolve()) for own in (folder, checkpoints))
    with ExitStack() as held:

        def find():
            own = {"--output_dir": folder, **(folders or {}), "checkpoints": checkpoints}
            held.enter_context(lock_folders(own))
            runs = [*checkpoints.glob("*.pdparams"), *(log for log in logs(folder) if log.exists())]
            for other in (folders or {}).values():  # a run's pictures would be replaced by ours
                runs += Path(other).glob("*.png")
            if runs and not goes_on:
                raise UserError(
                    f"--output_dir {folder}: holds a run already, {runs[0]}. "
                    "Go on with --resume auto, or name another folder"
                )
            newest = checkpoint.resume(args.resume, checkpoints)
            if newest:
                _tell_differences(newest[1].get("args", {}), vars(args))
            return newest and (str(newest[0]), newest[1])

        newest = from_main(find)
        if newest is None:
            yield None
            return
        path, state = newest
        if not getattr(args, "seed_given", True):  # then the run keeps its own
            args.seed = state.get("args", {}).get("seed", args.seed)
        yield Path(path), state


def logs(folder):
    """The two files of a run's log."""
    return [Path(folder) / "log.txt", Path(folder) / "log.jsonl"]


def begins_anew(args, checkpoints):
    """The line on a run that --resume finds nothing to go on from for."""
    best = sorted(Path(checkpoints).glob("best_*.pdparams"))
    line = f"--resume {args.resume}: no iter_*.pdparams in {checkpoints}, so the run begins anew"
    if best:
        line += f"; {', '.join(path.name for path in best)} stay: --resume {best[0]} goes on there"
    if any(path.exists() for path in logs(args.output_dir)):
        line += "; its log comes after what is there"
    return line


def _tell_differences(before, now):
    for name in sorted(now.keys() & before.keys() - {"command", "resume", "output_dir"}):
        if now[name] != before[name]:
            change = f"was {before[name]} in the checkpoint and is {now[name]} now"
            print(shown(f"resume: --{name} {change}"), flush=True)
