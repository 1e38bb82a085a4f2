"""Networks exported by paddle.jit.save (PaddleSeg's export): a graph of Paddle's own operators with
its weights, run by paddle.inference. No Python code comes with them, and the pickle beside them
(.pdiparams.info), which paddle.jit.load would read, is left alone. A graph can still write files or
crash the engine, so that `trial` tries it first, in a process of its own.
"""

import signal
import subprocess
import sys

import paddle

from shared_metrics import fluid_files, native
from shared_metrics.errors import UserError
from shared_metrics.inference import open_program
from shared_metrics.judges import trial

TRIAL_SIDE = 256  # px of the picture that an export is tried on
TRIAL_SECONDS = 300  # that this may take


def find_graph(path):
    """The graph file of the export that `path` names: itself, its weights, both without suffix, or
    the folder that holds one. None where it names none.

    Raises: UserError when a folder holds none or several, or the weights are not beside the graph.
    """
    if path.is_dir():
        graphs = [file for file in sorted(path.iterdir()) if file.suffix in native.PROGRAMS]
        graphs = [graph for graph in graphs if _weights(graph).is_file()]
        if len(graphs) != 1:
            raise UserError(
                f"--segmenter {path}: holds {len(graphs)} exported networks; name the file of one"
            )
        return graphs[0]
    stem = path.with_suffix("") if path.suffix in (*native.PROGRAMS, ".pdiparams") else path
    graphs = [stem.with_name(stem.name + suffix) for suffix in native.PROGRAMS]
    graphs = [
        graph for graph in (path, *graphs) if graph.suffix in native.PROGRAMS and graph.is_file()
    ]
    if graphs and not _weights(graphs[0]).is_file():
        raise UserError(
            f"--segmenter {graphs[0]}: its weights {_weights(graphs[0]).name} are not beside it; "
            "add them"
        )
    return graphs[0] if graphs else None


def _weights(graph):
    return graph.with_suffix(".pdiparams")


def open_export(graph, side=0):
    """Function float32 array -> array of the network's first output.

    Args: side, px of the pictures it is for (0: TRIAL_SIDE), where the graph takes any.
    Raises: UserError naming the file when it is damaged, holds operators that are not of inference,
        or is no network of one picture.
    """
    where = f"--segmenter {graph}"
    if graph.suffix == ".json" and paddle.__version__.startswith("2."):
        raise UserError(
            f"{where}: an export by Paddle 3, which Paddle {paddle.__version__} cannot read; "
            "export it anew"
        )
    if not fluid_files.is_whole(_weights(graph)):
        raise UserError(f"{where}: its weights {_weights(graph).name} are cut; export it again")
    _try(graph, side or TRIAL_SIDE, where)
    try:
        names, run = open_program(graph, _weights(graph), device=paddle.get_device())
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise UserError(
            f"{where}: not a whole export ({_last_line(error)}); export it again"
        ) from None
    if len(names) != 1:
        raise UserError(
            f"{where}: wants {len(names)} inputs ({', '.join(names)}); export a network of one "
            "picture"
        )

    def answer(x):
        try:
            return run(x)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{where}: does not run on pictures of {x.shape[3]}x{x.shape[2]} px "
                f"({_last_line(error)}); export it for any size, or give --segmenter_size"
            ) from None

    return answer


def _try(graph, side, where):
    """Let `trial` parse the graph and run it once; raise UserError for what it says or dies of."""
    command = [sys.executable, trial.__file__, str(graph), str(_weights(graph)), str(side)]
    how = {"capture_output": True, "text": True, "errors": "replace", "stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, timeout=TRIAL_SECONDS, check=False, **how)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{where}: did not answer to one picture in {TRIAL_SECONDS} s; export a smaller network"
        ) from None
    if done.returncode == 0:
        return
    lines = done.stdout.splitlines()
    reason = lines[-1] if lines else _last_line(done.stderr)
    if done.returncode < 0:
        reason = f"not a whole export, Paddle died of it ({signal.Signals(-done.returncode).name})"
    raise UserError(f"{where}: {reason}; export it again, from a source that you trust")


def _last_line(error):
    """What Paddle says, without its stack: the last line that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if "Hint" not in line]
    lines = [line for line in lines if "Error" in line or "(" in line]
    return lines[-1][:160] if lines else "damaged"
