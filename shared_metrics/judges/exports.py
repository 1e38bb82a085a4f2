"""Networks exported by paddle.jit.save (PaddleSeg's export): a graph of Paddle's own operators with
its weights, run by paddle.inference. No Python code comes with them, and the pickle beside them
(.pdiparams.info), which paddle.jit.load would read, is left alone.
"""

import json

import paddle

from shared_metrics.errors import UserError

GRAPHS = (".json", ".pdmodel")  # the graph of an export, by Paddle 3 and by Paddle 2


def find_graph(path):
    """The graph file of the export that `path` names: itself, its weights, both without suffix, or
    the folder that holds one. None where it names none.

    Raises: UserError when a folder holds none or several, or the weights are not beside the graph.
    """
    if path.is_dir():
        graphs = [file for file in sorted(path.iterdir()) if file.suffix in GRAPHS]
        graphs = [graph for graph in graphs if _weights(graph).is_file()]
        if len(graphs) != 1:
            raise UserError(
                f"--segmenter {path}: holds {len(graphs)} exported networks; name the file of one"
            )
        return graphs[0]
    stem = path.with_suffix("") if path.suffix in (*GRAPHS, ".pdiparams") else path
    graphs = [stem.with_name(stem.name + suffix) for suffix in GRAPHS]
    graphs = [graph for graph in (path, *graphs) if graph.suffix in GRAPHS and graph.is_file()]
    if graphs and not _weights(graphs[0]).is_file():
        raise UserError(
            f"--segmenter {graphs[0]}: its weights {_weights(graphs[0]).name} are not beside it; "
            "add them"
        )
    return graphs[0] if graphs else None


def _weights(graph):
    return graph.with_suffix(".pdiparams")


def open_export(graph):
    """Function float32 array -> array of the network's first output.

    Raises: UserError naming the file when it is damaged or no network of one picture.
    """
    from paddle import inference

    where = f"--segmenter {graph}"
    if graph.suffix == ".json":
        _check_json(graph, where)
    config = inference.Config(str(graph), str(_weights(graph)))
    config.disable_glog_info()
    device = paddle.get_device()
    if device.startswith("gpu"):
        config.enable_use_gpu(256, int(device.partition(":")[2] or 0))
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise UserError(
            f"{where}: not a whole export ({_last_line(error)}); export it again"
        ) from None
    names = predictor.get_input_names()
    if len(names) != 1:
        raise UserError(
            f"{where}: wants {len(names)} inputs ({', '.join(names)}); export a network of one "
            "picture"
        )

    def answer(x):
        predictor.get_input_handle(names[0]).copy_from_cpu(x)
        try:
            predictor.run()
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{where}: does not run on pictures of {x.shape[3]}x{x.shape[2]} px "
                f"({_last_line(error)}); export it for any size, or give --segmenter_size"
            ) from None
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    return answer


def _check_json(graph, where):
    """Raise UserError where Paddle would crash: a version that does not know the format, or no
    program in the file.
    """
    if int(paddle.__version__.split(".")[0]) == 2:
        raise UserError(
            f"{where}: an export by Paddle 3, which Paddle {paddle.__version__} cannot read; "
            "export it anew"
        )
    try:
        program = json.loads(graph.read_text(encoding="utf-8"))
    except ValueError:
        program = None
    if not isinstance(program, dict) or "program" not in program:
        raise UserError(f"{where}: holds no program of Paddle; give the graph of an export")


def _last_line(error):
    """What Paddle says, without its stack: the last line that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if "Hint" not in line]
    lines = [line for line in lines if "Error" in line or "(" in line]
    return lines[-1][:160] if lines else "damaged"
