"""The benchmark's commands run and print a row for each thing measured; no number is tested."""

import re
import sys
from functools import partial

import numpy as np
import pytest

from scripts import benchmark_growth, check_gpu, make_toy_data
from scripts import benchmark_runs as benchmark
from shared_metrics import weights

NUMBER = r"\d[\d.e+-]*"


def run(capsys, *words):
    """Lines of the table that a command prints."""
    benchmark.main([str(word) for word in words])
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


def test_loader(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_gpu.loader_speed, "__defaults__", (0.05,))
    make_toy_data.make(tmp_path / "data", classes=2, count=32, size=16)
    folder = tmp_path / "data" / "train"
    *_, one, two = run(capsys, "loader", folder, "--size", 8, "--workers", "0,2", "--repeat", 2)
    assert re.fullmatch(rf"\| 0 \| {NUMBER} \|", one) and re.fullmatch(rf"\| 2 \| {NUMBER} \|", two)


def test_steps(capsys):
    words = ["steps", "--papers", "cgan", "--batch_sizes", "4", "--iterations", 1]
    *_, row = run(capsys, *words, "--", "--g_base_dims", 2)
    assert re.fullmatch(rf"\| cgan \| {NUMBER} s, {NUMBER} MiB \|", row)


def test_a_step_that_fails_is_told(tmp_path):
    (paper,) = check_gpu.chosen("cgan")
    args = benchmark.parse_args(["steps", "--iterations", "1"])
    words = ["--model_net", "CGAN", "--data_dir", tmp_path / "nothing"]
    cell = benchmark.one_size(paper, words, 2, tmp_path / "out", args)
    assert cell.startswith("--data_dir") and not re.search(NUMBER + " s", cell)


def test_draw(paper, tmp_path, capsys):
    paper("classic_gans")
    from dcgan.model import Architecture, networks

    arch = Architecture(image_size=16, noise_size=4, g_base_dims=2, d_base_dims=2)
    state = {name: t.numpy() for name, t in networks(arch)[0].state_dict().items()}
    path = tmp_path / "iter_0000001.pdparams"
    weights.save({"paper": "dcgan", "architecture": arch.to_dict(), "generator": state}, path)
    *_, row = run(capsys, "draw", path, "--batch_size", 2, "--repeat", 1)
    onnx = rf"({NUMBER}|not available)"
    assert re.fullmatch(
        rf"\| {path.name} \| generator (\| {NUMBER} ){{3}}\| {onnx} \| not asked \|", row
    )


def test_a_twin_in_torch_is_asked_for_the_same_network(paper, tmp_path):
    paper("sagan")
    from model import Generator, architecture

    arch = architecture("studiogan", 32, 3, g_conv_dim=2, d_conv_dim=4)
    state = {name: t.numpy() for name, t in Generator(arch).state_dict().items()}
    path = tmp_path / "iter_0000001.pdparams"
    weights.save({"paper": "sagan", "architecture": arch.to_dict(), "generator": state}, path)
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "ask = json.loads(sys.argv[3])\n"
        "assert sys.argv[2] == 'draw' and ask['g_conv_dim'] == 2, sys.argv\n"
        "assert ask['inputs'] == [[[2, 128], 'float32'], [[2], 'int64']], ask['inputs']\n"
        "print(json.dumps({'speed': 12.34, 'parameters': [1]}))\n"
    )
    python.chmod(0o755)
    arrays = [np.zeros((2, 128), np.float32), np.zeros(2, np.int64)]
    ask = partial(benchmark.twin_speed, "sagan", path, arrays, repeat=1)
    assert ask(torch=str(python)) == "12.3"
    python.write_text("#!/bin/sh\nexit 3\n")
    assert ask(torch=str(python)) == "no twin"


def test_words_after_two_dashes_are_for_train():
    args = benchmark.parse_args(["steps", "--papers", "sagan", "--", "--imsize", "64"])
    assert (args.papers, args.flags, args.batch_sizes) == ("sagan", ["--imsize", "64"], [4, 16])
    with pytest.raises(SystemExit):
        benchmark.parse_args(["draw"])


@pytest.mark.parametrize("kind", ["scan", "draw", "compare"])
def test_growth(capsys, kind):
    benchmark_growth.main([kind, "--sizes", "2,5"])
    *_, none, two, five = capsys.readouterr().out.splitlines()
    for row, size in ((none, 0), (two, 2), (five, 5)):
        assert re.fullmatch(rf"\| {size} \| {NUMBER} \| {NUMBER} \|", row)
