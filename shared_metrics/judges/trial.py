"""Tries an exported network before it is trusted: python trial.py GRAPH WEIGHTS SIDE

`exports` starts this in a process of its own, with limits of memory and time and without leave to
write a file: whatever Paddle's native code dies of ends this process alone. The graph is read by
Paddle's own parser, its operators are held against OPERATORS, and only then it runs, once, on an
empty picture of SIDE px. Exits with 0, or with 2 and a line that says why not.
"""

import sys
from pathlib import Path

MEMORY = 2**33  # bytes beyond what Paddle itself takes
SECONDS = 120  # of a core
# What inference is made of, under its names in Paddle 2 and 3. Nothing here reads or writes files,
# calls back into Python or loops.
OPERATORS = frozenset(
    """
    abs add add_n affine_channel affine_grid any arange arg_max arg_min argmax argmin
    array_to_tensor assign assign_value batch_norm bicubic_interp bicubic_interp_v2
    bilinear_interp bilinear_interp_v2 bmm cast ceil clip combine concat constant conv2d
    conv2d_transpose conv3d cos cumsum data deformable_conv depthwise_conv2d
    depthwise_conv2d_transpose divide dropout einsum elementwise_add elementwise_div
    elementwise_floordiv elementwise_max elementwise_min elementwise_mod elementwise_mul
    elementwise_pow elementwise_sub elu equal erf exp expand expand_as expand_as_v2 expand_v2 feed
    fetch fill_any_like fill_constant fill_constant_batch_size_like flatten
    flatten_contiguous_range flip floor floor_divide full full_int_array full_like
    full_with_tensor gather gather_nd gelu greater_equal greater_than grid_sample grid_sampler
    group_norm hard_sigmoid hard_swish hardsigmoid hardswish hardtanh index_sample index_select
    instance_norm layer_norm leaky_relu less_equal less_than linear_interp linspace log
    logical_and logical_not logical_or logical_xor logsumexp masked_select matmul matmul_v2
    matrix_nms max max_pool2d_with_index maximum maxpool mean meshgrid min minimum mish mul
    multiclass_nms3 multiply nearest_interp nearest_interp_v2 nonzero norm not_equal numel one_hot
    one_hot_v2 p_norm pad pad2d pad3d parameter pixel_shuffle pixel_unshuffle pool2d pool3d pow
    prelu prod range reciprocal reduce_all reduce_any reduce_max reduce_mean reduce_min
    reduce_prod reduce_sum relu relu6 remainder repeat_interleave reshape reshape2 roll round
    rsqrt scale scatter scatter_nd_add sgn shadow_output shape shape64 share_data sigmoid sign
    silu sin size slice softmax softplus softshrink softsign split split_with_num sqrt square
    squeeze squeeze2 stack strided_slice subtract sum swish swish6 sync_batch_norm take_along_axis
    tanh tanh_shrink temporal_shift thresholded_relu tile top_k top_k_v2 topk transpose transpose2
    tril tril_triu trilinear_interp triu trunc unbind unfold unsqueeze unsqueeze2 unstack upsample
    where where_index yolo_box
    """.split()
)


def limit():
    """Set the limits, as far as this system has them."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        taken = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def read(graph):
    """(names of a graph's operators without the dialect, shapes of its inputs, -1 for any side)."""
    import paddle
    from paddle.base import core

    if graph.suffix == ".json":
        program = paddle.static.Program()
        if not core.deserialize_pir_program(str(graph), program, 1):
            raise ValueError("it holds no program")
        ops = program.global_block().ops
        names = {op.name().removeprefix("pd_op.").removeprefix("builtin.") for op in ops}
        return names, [op.results()[0].shape for op in ops if op.name() == "pd_op.data"]
    program = core.ProgramDesc(graph.read_bytes())
    blocks = [program.block(i) for i in range(program.num_blocks())]
    ops = [block.op(i) for block in blocks for i in range(block.op_size())]
    inputs = [op.output("Out")[0] for op in ops if op.type() == "feed"]
    shapes = [blocks[0].find_var(name.encode()).shape() for name in inputs]
    return {op.type() for op in ops}, shapes


def refuse(line):
    """Say a line, and end with 2."""
    print(line, flush=True)
    sys.exit(2)


def run_once(graph, weights, shape):
    """Run the network on an empty picture. An error that the picture's size may be the cause of is
    left to the real ones.
    """
    import numpy as np
    from paddle import inference

    config = inference.Config(str(graph), str(weights))
    config.disable_glog_info()
    config.disable_gpu()
    predictor = inference.create_predictor(config)
    names = predictor.get_input_names()
    if len(names) != 1:
        return
    try:
        predictor.get_input_handle(names[0]).copy_from_cpu(np.zeros(shape, np.float32))
        predictor.run()
    except (RuntimeError, ValueError, OSError) as error:
        if "ResourceExhausted" in str(error) or "alloc" in str(error):
            raise MemoryError from None


def main(graph, weights, side):
    """Limits, parser, operators, a run."""
    import paddle  # before the limits: what it takes is its own

    paddle.set_device("cpu")
    limit()
    graph = Path(graph)
    try:
        names, shapes = read(graph)
        foreign = sorted(name for name in names if name.rstrip("_") not in OPERATORS)
        if foreign:
            listed = ", ".join(ascii(name)[1:-1][:40] for name in foreign[:5])
            refuse(f"its graph holds operators that are not of inference: {listed}")
        shape = [1, 3, int(side), int(side)]
        for declared in shapes[:1]:
            pairs = zip(declared, shape, strict=False)
            shape = [own if own > 0 else other for own, other in pairs]
        run_once(graph, weights, shape)
    except MemoryError:
        refuse(f"it asks for more than {MEMORY >> 30} GiB of memory")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if "Hint" not in line]
        lines = [line for line in lines if "Error" in line or "(" in line] or ["damaged"]
        refuse(f"not a whole export ({lines[-1][:160]})")


if __name__ == "__main__":
    main(*sys.argv[1:])
