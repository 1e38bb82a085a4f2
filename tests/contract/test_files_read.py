"""What every paper says of a file of weights that it cannot take: one line that names the file."""

import numpy as np
import pytest
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from tests.contract.papers import PAPERS


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """{paper: contents of its checkpoint after one iteration}, made when asked for."""
    made = {}

    def contents(name, paper):
        if name not in made:
            spec = PAPERS[name]
            folder = tmp_path_factory.mktemp(name)
            flags = spec.flags(spec.data(folder), folder / "run", 1)
            paper(spec.folder).train.main(flags[1:])
            made[name] = folder / "run" / "checkpoints" / "iter_0000001.pdparams"
        return weights.load(made[name])

    return contents


@pytest.fixture(params=list(PAPERS))
def trained(request, checkpoints, paper, tmp_path):
    """(contents of a paper's checkpoint, its convert.py, function that saves them anew)."""
    state = checkpoints(request.param, paper)
    folder = paper(PAPERS[request.param].folder)

    def save(name="x.pdparams"):
        state.pop("sha256", None)
        weights.save({**state, "sha256": files.digest(state)}, tmp_path / name)
        return tmp_path / name

    return state, folder, save


def first_of(state, ending):
    """[(network, entry)], the first array of a generator whose name ends like this; [] if none."""
    for network, values in state.items():
        if network.startswith("generator") and not network.endswith("_ema"):
            return [(network, name) for name in values if name.endswith(ending)][:1]
    return []


def refusal(folder, path, tmp_path):
    """What test.py says of the weights in `path`."""
    flags = ["--pretrained_model", path, "--device", "cpu"]
    out = tmp_path / "out.png"
    if folder.folder.name == "gaugan_simam":  # whose test.py draws maps, or scores pairs
        Image.new("L", (32, 32)).save(tmp_path / "map.png")
        flags += ["--semantic_label_path", tmp_path / "map.png", "--output_path", out]
    else:
        flags += ["--output_dir", out]
    if folder.folder.name != "classic_gans":
        flags += ["--no_ema"]
    with pytest.raises(UserError) as caught:
        folder.test.main([str(flag) for flag in flags])
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert not out.is_file() and not list(out.glob("**/*.png"))
    return message


def test_weights_that_are_no_numbers(trained, tmp_path):
    state, folder, save = trained
    for ending, value in (("weight", np.nan), ("_variance", np.inf), ("_variance", -1.0)):
        for network, name in first_of(state, ending):
            kept = state[network][name].copy()
            state[network][name].flat[0] = value
            assert f"{name} of the {network} holds" in refusal(folder, save(), tmp_path)
            state[network][name] = kept


NO_TYPES = {  # entry -> what a well signed file may hold there
    "args": ["text"],
    "iteration": "12",
    "architecture": {"imsize": np.zeros(3)},
    "paper": 7,
    "generator": {"weight": "1.5"},
    "optimizer_g": {"moment1": [1.0]},
    "source": {"iteration": np.zeros(2)},
    "best": "none",
    "notes": "text",
    "format": [1],
}


def test_entries_of_a_wrong_type(trained, tmp_path):
    """Of a file that is whole and well signed."""
    state, folder, save = trained
    kept = dict(state)
    for name, value in NO_TYPES.items():
        if name == "generator":
            name = next(network for network in state if network.startswith("generator"))
        state[name] = value
        assert f"its entry {name}" in refusal(folder, save(), tmp_path)
        state.clear()
        state.update(kept)
    state["args"] = {**kept["args"], "recipe": ["a", "list"]}
    assert "its entry args.recipe is no text" in refusal(folder, save(), tmp_path)
    state["args"] = kept["args"]
    state["architecture"] = {**kept["architecture"], "unknown": 1}
    assert "architecture: entries ['unknown']" in refusal(folder, save(), tmp_path)


WIDTHS = ("g_conv_dim", "ngf", "g_base_dims", "g_repeat_num", "n_layers")


def test_sizes_that_the_arrays_do_not_have_take_no_memory(trained, tmp_path):
    """Of a file that is whole and well signed: 60,000 channels are terabytes of weights."""
    state, folder, save = trained
    kept = state["architecture"]
    for name in WIDTHS:
        for size in (10**9, 60_000) if name in kept else ():
            state["architecture"] = {**kept, name: size}
            message = refusal(folder, save(), tmp_path)
            told = f"architecture: {name} cannot be {size}" in message
            assert told or "does not fit the generator" in message
    state["architecture"] = kept


def test_a_file_of_another_paper_tells_whose_it_is(trained, tmp_path):
    state, folder, save = trained
    theirs = "acgan" if state["paper"] == "sagan" else "sagan"
    state["paper"] = theirs
    assert theirs in refusal(folder, save(), tmp_path).replace(str(tmp_path), "")


def test_a_run_folder_and_a_pointer_are_told(trained, tmp_path):
    state, folder, save = trained
    (tmp_path / "pointer.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    )
    assert "git lfs pull" in refusal(folder, tmp_path / "pointer.pth", tmp_path)
    if folder.folder.name != "classic_gans":  # which takes its newest checkpoint
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        save("run/checkpoints/iter_0000001.pdparams")
        assert "iter_0000001.pdparams" in refusal(folder, tmp_path / "run", tmp_path)
