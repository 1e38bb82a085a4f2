"""published.py: what every convert.py does round its tables, on a paper of one-layer networks."""

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from shared_metrics import files, published, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint


@dataclass(frozen=True)
class Architecture(published.PlainFields):
    inputs: int = 3
    outputs: int = 2
    sides: tuple = (8, 4)
    norm: Literal["batch", "instance"] = "batch"
    depth: Literal[0, 1] = 0
    layers: published.Depth = 4
    eps: float = 1e-5
    bias: bool = True
    name: str = "x"

    def __post_init__(self):
        object.__setattr__(self, "sides", tuple(self.sides))
        if self.inputs <= self.outputs:
            raise UserError(f"--inputs {self.inputs}: must exceed {self.outputs}")


# ---- an architecture in a checkpoint ----


def test_plain_fields_survive_json():
    arch = Architecture(inputs=7, sides=(16,), norm="instance", depth=1, eps=0)
    values = json.loads(json.dumps(arch.to_dict()))
    assert values["sides"] == [16] and values["norm"] == "instance"
    assert Architecture.from_dict(values) == arch


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"inputs": 0}, "inputs cannot be 0"),
        ({"inputs": 3.0}, "inputs cannot be 3.0"),
        ({"inputs": 2**16 + 1}, "inputs cannot be 65537"),
        ({"layers": 101}, "layers cannot be 101"),
        ({"sides": [8] * 101}, r"sides cannot be \[8, 8"),
        ({"inputs": True}, "inputs cannot be True"),
        ({"inputs": "3\x1b[2J\n"}, r"inputs cannot be 3\\x1b\[2J\\n"),
        ({"sides": 8}, "sides cannot be 8"),
        ({"sides": [8, -4]}, r"sides cannot be \[8, -4\]"),
        ({"norm": "layer"}, "norm cannot be layer"),
        ({"norm": np.array(["batch", "batch"])}, "norm cannot be"),
        ({"depth": 2}, "depth cannot be 2"),
        ({"eps": float("nan")}, "eps cannot be nan"),
        ({"eps": -1.0}, "eps cannot be -1.0"),
        ({"eps": float("inf")}, "eps cannot be inf"),
        ({"bias": 1}, "bias cannot be 1"),
        ({"name": None}, "name cannot be None"),
        ({"colour": 1}, r"entries \['colour'\] are unknown or missing"),
        ({1: 1}, r"entries \['1'\] are unknown or missing"),
        ({"inputs": 2}, "^--inputs 2: must exceed 2"),
    ],
)
def test_values_of_a_file_are_looked_at(changes, words):
    with pytest.raises(UserError, match=words) as error:
        Architecture.from_dict(Architecture().to_dict() | changes)
    assert "\n" not in str(error.value)


def test_what_is_no_dict_of_fields_is_refused():
    values = Architecture().to_dict()
    del values["norm"]
    for wrong in (values, [], None, "norm"):
        with pytest.raises(UserError, match="'norm'.* are unknown or missing"):
            Architecture.from_dict(wrong)


def test_sizes_that_a_file_tells_are_looked_at(tmp_path):
    build = published.architecture
    assert build("f", Architecture, inputs=5) == Architecture(inputs=5)
    with pytest.raises(UserError, match="^f: its shapes make no network .*--inputs 1: must exceed"):
        build("f", Architecture, inputs=1)
    with pytest.raises(UserError, match="^f: its shapes make no network .*outputs cannot be 0"):
        build("f", Architecture, outputs=0)


# ---- one read ----


def split(data, path):
    """A toy family: G under `g`, D under `d`."""
    return {net: data[net[0]] for net in ("generator", "discriminator") if net[0] in data}


def saved(path, data):
    weights.save(data, path)
    return path


def test_gather_takes_each_network_from_its_file(tmp_path, monkeypatch):
    both = saved(tmp_path / "both", {"g": {"w": np.ones(1)}, "d": {"w": np.ones(2)}})
    other = saved(tmp_path / "other", {"d": {"w": np.ones(3)}})
    reads = []
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda path: reads.append(path.name) or load(path))
    states, places = published.gather(both, split, discriminator=other)
    assert [len(state["w"]) for state in states.values()] == [1, 3]
    assert places == {"generator": both, "discriminator": other}
    assert reads == ["both", "other"]
    data = {"g": {"w": np.ones(4)}}  # read before
    states, places = published.gather(both, split, data, discriminator="")
    assert len(states["generator"]["w"]) == 4 and places == {"generator": both}
    assert reads == ["both", "other"]


def test_gather_refuses_what_is_not_there(tmp_path):
    g_path = saved(tmp_path / "g", {"g": {}})
    d_path = saved(tmp_path / "d", {"d": {}})
    with pytest.raises(UserError, match="^--discriminator .*g: holds no discriminator, but gener"):
        published.gather(g_path, split, discriminator=g_path)
    with pytest.raises(UserError, match="d: holds discriminator weights only; .* as --discrim"):
        published.gather(d_path, split, discriminator=d_path)
    states, _ = published.gather(d_path, split, discriminator="")
    with pytest.raises(UserError, match="d: holds discriminator weights only"):
        published.need_generator(states, d_path)
    published.need_generator({"generator_a": {}}, d_path)  # one of several
    own = saved(tmp_path / "own", {"generator": {}, "architecture": {}})
    for paths in ((own, ""), (g_path, own)):
        with pytest.raises(UserError, match="own: is in this repository's layout already"):
            published.gather(paths[0], split, discriminator=paths[1])


def test_own_layout(tmp_path):
    """A checkpoint is verified, what convert.py wrote has no sum to verify, the rest is foreign."""
    state = {"generator": {"w": np.ones(2)}, "architecture": Architecture().to_dict()}
    path = checkpoint.save_checkpoint(tmp_path, 3, state, 0)
    data = weights.load(path)
    data["generator"]["w"][0] = 5
    with pytest.raises(UserError, match="sha256"):
        published.own(data, path)
    assert published.own(weights.load(path), path)["iteration"] == 3
    assert published.own(state, path) is state
    for foreign in ({"generator": {}}, {"architecture": {}}, {"w": np.ones(1)}, [1]):
        assert published.own(foreign, path) is None


# ---- keys and layout ----


def test_arrays():
    state = {"module.a.module.b": np.ones(2), "submodule.c": 3, 4: np.float64(1)}
    arrays = published.arrays(state, published.DATA_PARALLEL)
    assert list(arrays) == ["a.b", "submodule.c", "4"]
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    clash = published.arrays({"module.a": 1, "a": 2}, published.DATA_PARALLEL)
    assert clash == {"a": 1, "a (twice)": 2}
    assert list(published.arrays(state)) == ["module.a.module.b", "submodule.c", "4"]
    for wrong in (None, [1], {"a": "text"}, {"a": {}}, {"a": [1.0]}, {"a": np.array(["x"])}):
        assert published.arrays(wrong) == {}


FAMILIES = {
    "new": {"generator": [r"^fc\.", r"\._mean$"], "discriminator": [r"^head\."]},
    "old": {"generator": [r"^fc\."]},
}


def test_recognise_takes_the_first_family_whose_keys_are_all_there():
    def recognise(*keys):
        return published.recognise(dict.fromkeys(keys), FAMILIES, "TOY", "f")

    assert recognise("fc.w", "bn._mean") == ("new", "generator")
    assert recognise("fc.w") == ("old", "generator")
    assert recognise("conv.w", "head.w") == ("new", "discriminator")
    with pytest.raises(UserError, match=r"^f: holds no TOY .* \(new, old\); its keys begin with a"):
        recognise("a\n", "b")
    with pytest.raises(
        UserError, match=r"^f: holds no TOY weights of a known family \(new, old\)$"
    ):
        recognise()


def test_rename_translates_names_and_layout():
    state = {
        "lin.weight": np.arange(6.0).reshape(2, 3),
        "conv.weight": np.arange(4.0).reshape(2, 2),
        "bn.running_mean": np.ones(2),
        "bn.running_var": np.ones(2),
        "bn.num_batches_tracked": np.int64(3),
        "gamma": np.array(2.0),
    }
    table = {r"^lin\.": "fc.", r"^fc\.": "snfc.", "^gamma$": "sigma"}
    result = published.rename(state, table, torch=True, transposed=r"snfc\.weight")
    assert list(result) == ["snfc.weight", "conv.weight", "bn._mean", "bn._variance", "sigma"]
    assert result["snfc.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert result["snfc.weight"].flags.c_contiguous
    assert result["conv.weight"].tolist() == [[0, 1], [2, 3]] and result["sigma"].tolist() == [2]
    assert all(value.dtype == np.float32 for value in result.values())
    clash = published.rename({"a.w": np.ones(1), "b.w": np.zeros(1)}, {"^a": "c", "^b": "c"})
    assert {key: value.tolist() for key, value in clash.items()} == {"c.w": [1], "c.w (twice)": [0]}
    kept = published.rename(state, {}, transposed=r"lin\.weight", dropped=r"^bn\.")
    assert list(kept) == ["lin.weight", "conv.weight", "gamma"]
    assert kept["lin.weight"].shape == (2, 3)  # Paddle's layout already


# ---- shapes ----


def test_shape():
    state = {"w": np.zeros((2, 3))}
    assert published.shape(state, "w", 2, "f") == (2, 3)
    for key, dims in (("w", 4), ("v", 2)):
        with pytest.raises(UserError, match=f"^f: lacks {key} .* of {dims} dimensions"):
            published.shape(state, key, dims, "f")


def test_agree():
    sizes = {"generator": {"imsize": 32, "form": "a"}, "discriminator": {"imsize": 64, "form": "a"}}
    where = {"generator": "g", "discriminator": "d"}
    published.agree(sizes, {"form": "of {}"}, where)
    published.agree({"generator": {}}, {"imsize": "for {} px"}, where)
    with pytest.raises(
        UserError, match="^--discriminator d: D is for 64 px, the G of g for 32 px$"
    ):
        published.agree(sizes, {"form": "of {}", "imsize": "for {} px"}, where)
    with pytest.raises(UserError, match="^g: D is for 64 px, the G of g for 32 px$"):
        published.agree(sizes, {"imsize": "for {} px"}, dict.fromkeys(where, "g"))


def network(arch):
    import paddle

    return paddle.nn.Linear(arch.inputs, arch.outputs)


def test_check_shapes_draws_no_weights():
    import paddle

    drawn = []

    class Counting(paddle.nn.initializer.Normal):
        def forward(self, *args):
            drawn.append(1)
            return super().forward(*args)

    def build(arch):
        attr = paddle.ParamAttr(initializer=Counting())
        return paddle.nn.Sequential(
            paddle.nn.Linear(arch.inputs, arch.outputs, weight_attr=attr),
            paddle.nn.BatchNorm1D(arch.outputs),
        )

    def check(state):
        published.check_shapes({"generator": state}, {"generator": build}, Architecture(), where)

    where = {"generator": "f"}
    state = {key: value.numpy() for key, value in build(Architecture()).state_dict().items()}
    assert len(drawn) == 1
    check(state)
    with pytest.raises(
        UserError, match=r"^f: .*generator, in the names used here.*1 missing \(0\.b"
    ):
        check({key: value for key, value in state.items() if key != "0.bias"})
    with pytest.raises(UserError, match=r"0\.weight: file \(2, 3\), network \(3, 2\)"):
        check(state | {"0.weight": state["0.weight"].T})
    assert len(drawn) == 1
    assert len(build(Architecture())[0].weight.numpy()) == 3 and len(drawn) == 2


def test_note():
    note = published.note
    assert note("eps", 3, chosen=True) == "eps 3 (as given)"
    text = "(not in the file: by family; convert.py --eps changes it)"
    assert note("eps", 3, chosen=False) == f"eps 3 {text}"
    assert note("eps", 3, False, "no_eps") == f"eps 3 {text.replace('--', '--no_')}"


# ---- the command ----


def toy(src, discriminator="", eps=None):
    """A paper's read_published."""
    states, where = published.gather(src, split, discriminator=discriminator)
    arch = Architecture(eps=eps or 1e-5)
    published.check_shapes(states, dict.fromkeys(states, network), arch, where)
    source = published.source(src, "old", iteration=7)
    notes = [published.note("eps", arch.eps, chosen=eps is not None)]
    return published.Published("old", arch, states, source, notes)


def describe(result):
    return [f"{result.family}, {len(result.networks)} networks", "more"]


@pytest.fixture
def convert(capsys):
    """convert(*arguments) -> what was printed."""

    def run(*arguments):
        p = published.parser("First line.\nMore.", "the source", "to write", discriminator="of D")
        p.add_argument("--eps", type=float)
        published.convert(p, toy, describe, [str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


def linear(seed):
    rng = np.random.default_rng(seed)
    return {"weight": rng.random((3, 2), "float32"), "bias": rng.random(2, "float32")}


def test_convert_writes_one_file_and_tells(convert, tmp_path):
    src = saved(tmp_path / "重 g.pth", {"g": linear(0)})
    d_path = saved(tmp_path / "d.pth", {"d": linear(1)})
    dst = tmp_path / "out.pdparams"
    printed = convert(src, dst, "--discriminator", d_path, "--eps", 0.5).splitlines()
    assert printed == [
        f"{src}: old, 2 networks", "  more", "  eps 0.5 (as given)", f"wrote {dst}"
    ]  # fmt: skip
    written = weights.load(dst)
    assert list(written) == ["generator", "discriminator", "architecture", "source"]
    assert files.digest(written["generator"]) == files.digest(linear(0))
    assert files.digest(written["discriminator"]) == files.digest(linear(1))
    assert Architecture.from_dict(written["architecture"]) == Architecture(eps=0.5)
    sha256 = files.file_sha256(src)
    about = {"file": "重 g.pth", "sha256": sha256, "family": "old", "iteration": 7}
    assert written["source"] == about
    assert published.own(written, dst) is written
    with pytest.raises(UserError, match="out.pdparams: is there already; .*--overwrite"):
        convert(src, dst)
    assert "eps 1e-05 (not in the file" in convert(src, dst, "--overwrite")


def test_convert_takes_the_generator_out_of_a_checkpoint(convert, tmp_path):
    """The averaged one in float16, what fits in it; no D, no optimizer, no pictures, no folders."""
    arch = Architecture().to_dict()
    average = linear(1) | {"table": np.array([[1e6, 1.0]], "float32")}  # too large for float16
    state = {
        "generator": linear(0),
        "generator_ema": average,
        "discriminator": linear(2),
        "optimizer_g": {"moment1": linear(3)},
        "scaler_g": {},
        "pool_A": [np.zeros(3)],
        "best": {},
        "args": {"data_path": str(tmp_path / "cats"), "recipe": "x", "batch_size": 8},
        "architecture": arch,
        "classes": ["cat", "dog"],
    }
    src = checkpoint.save_checkpoint(tmp_path, 7, state, 0)
    dst = tmp_path / "generator.pdparams"
    with pytest.raises(UserError, match="--eps: has no effect on .*which tells all by itself"):
        convert(src, tmp_path / "other.pdparams", "--eps", 0.5)
    assert "the generator alone" in convert(src, dst)
    small = weights.load(dst)
    sha256 = files.file_sha256(src)
    source = {"file": src.name, "sha256": sha256, "family": "this repository's", "ema": True}
    assert small.pop("source") == source
    generator = small.pop("generator")
    assert small == {
        "args": {"data_path": "cats", "recipe": "x", "batch_size": 8},
        "architecture": arch,
        "classes": ["cat", "dog"],
        "iteration": 7,
    }
    assert {name: a.dtype.name for name, a in generator.items()} == {
        "weight": "float16", "bias": "float32", "table": "float32"
    }  # fmt: skip
    for name, array in average.items():
        np.testing.assert_allclose(generator[name], array, rtol=1e-3)
    assert published.own(weights.load(dst), dst) is not None
    only_d = checkpoint.save_checkpoint(
        tmp_path, 8, {"discriminator": linear(2), "architecture": arch}, 0
    )
    with pytest.raises(UserError, match="holds discriminator weights only"):
        convert(only_d, tmp_path / "none.pdparams")


def test_no_source_is_overwritten(convert, tmp_path):
    src = saved(tmp_path / "g.pth", {"g": linear(0)})
    d_path = saved(tmp_path / "d.pth", {"d": linear(1)})
    (tmp_path / "link.pth").symlink_to(d_path)
    for dst in (src, d_path, tmp_path / "link.pth"):
        before = dst.read_bytes()
        with pytest.raises(UserError, match=f"{dst.name}: is the source itself"):
            convert(src, dst, "--discriminator", d_path)
        assert dst.read_bytes() == before
