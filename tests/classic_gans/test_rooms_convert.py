"""Published weights of StarGAN, AttGAN, STGAN and SPADE in the layouts of their families, written
here with random numbers, come back as they were.
"""

import importlib
import json
import re

import numpy as np
import pytest

from shared_metrics import weights
from shared_metrics.errors import UserError
from tests.classic_gans.networks import arrays, randomize, tensor


@pytest.fixture
def convert(paper):
    """Function of a room's name that gives its convert module."""
    paper("classic_gans")
    return lambda room: importlib.import_module(f"{room}.convert")


def check(result, **networks):
    """The networks that were read equal these."""
    assert result.networks.keys() == networks.keys()
    for name, network in networks.items():
        expected = arrays(network)
        assert result.networks[name].keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(result.networks[name][key], value, err_msg=key)


def torch_layout(network, linear=r"(?!)", scale="weight"):
    """The state as torch's files have it: names of norms, linear weights (out, in), counters."""
    state = {}
    for key, value in arrays(network).items():
        if key.endswith("._mean"):
            state[key.replace("._mean", ".num_batches_tracked")] = np.array(7)
        key = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        state[re.sub(r"scale$", scale, key)] = value.T if re.fullmatch(linear, key) else value
    return state


def fluid_norm(kind):
    """Leaves of PaddleCV's norms by ours."""
    if kind == "instance":
        return {"scale": "norm_scale", "bias": "norm_offset"}
    return {"weight": "norm_w", "bias": "norm_b", "_mean": "norm_mean", "_variance": "norm_var"}


OTHERS = {  # what else PaddleCV's programs save
    "@LR_DECAY_COUNTER@": np.array([12]),
    "learning_rate_0": np.array([1e-4], np.float32),
    "g_main0_w_net_G_moment1_0": np.zeros(3, np.float32),
    "generator_Genc0_w_net_G_beta1_pow_acc_0": np.ones(1, np.float32),
    "vgg19_conv1_1_weights": np.zeros((2, 3, 3, 3), np.float32),
}


# ---- StarGAN ----


def stargan_networks(changes=()):
    import stargan.model as model

    sizes = {"image_size": 32, "c_dim": 5, "g_base_dims": 4, "d_base_dims": 4, "d_repeat_num": 4}
    arch = model.Architecture(**(sizes | {"g_repeat_num": 2} | dict(changes)))
    return arch, randomize(model.Generator(arch)), randomize(model.Discriminator(arch), 1)


def test_yunjey(convert, tmp_path, capsys):
    arch, G, D = stargan_networks()
    state = torch_layout(G)
    for key in [k for k, v in state.items() if v.ndim == 1 and k.endswith("weight")]:
        norm = key.removesuffix("weight")
        state |= {f"{norm}running_mean": state[key] + 1, f"{norm}running_var": state[key] ** 2}
        state[f"{norm}num_batches_tracked"] = np.array(9)
    weights.save(state, tmp_path / "200000-G.ckpt")
    weights.save({f"module.{k}": v for k, v in arrays(D).items()}, tmp_path / "200000-D.ckpt")
    result = convert("stargan").read_published(
        tmp_path / "200000-G.ckpt", discriminator=tmp_path / "200000-D.ckpt"
    )
    assert result.architecture == arch and result.family == "yunjey"
    check(result, generator=G, discriminator=D)
    assert capsys.readouterr().err == ""
    alone = convert("stargan").read_published(tmp_path / "200000-G.ckpt")
    assert alone.architecture.image_size == 128 and "image_size 128" in alone.notes[0]
    assert re.match("warning: .*200000-G.ckpt: .*128 px; .*--image_size", capsys.readouterr().err)
    convert("stargan").read_published(tmp_path / "200000-G.ckpt", image_size=256)
    assert capsys.readouterr().err == ""
    check(alone, generator=G)
    with pytest.raises(UserError, match="holds discriminator weights only"):
        convert("stargan").read_published(tmp_path / "200000-D.ckpt")


def test_yunjey_on_two_data_sets(convert, tmp_path):
    arch, G, D = stargan_networks({"c_dim": 3, "c2_dim": 4})
    for name, network in (("G", G), ("D", D)):
        weights.save(torch_layout(network), tmp_path / name)
    result = convert("stargan").read_published(
        tmp_path / "G", discriminator=tmp_path / "D", c2_dim=4
    )
    assert result.architecture == arch and result.source["selected_attrs"] == []
    with pytest.raises(UserError, match="conv2"):
        convert("stargan").read_published(tmp_path / "G", discriminator=tmp_path / "D")


def fluid_stargan(G, D):
    state = {}
    for key, value in arrays(G).items():
        *path, leaf = key.removeprefix("main.").split(".")
        number = int(path[-1])
        if leaf != "weight":  # instance norm, named as the convolution before it
            number = number - 1
            leaf = fluid_norm("instance")[leaf]
        layer = f"g_main{number}" if len(path) == 1 else f"g_main.{path[0]}.main{number}"
        state[f"{layer}_{leaf.replace('weight', 'w')}"] = value
    for key, value in arrays(D).items():
        layer, _ = key.rsplit(".", 1)
        state["d_" + layer.replace("main.", "main") + "_w"] = value
    return state


def test_stargan_of_paddlecv(convert, tmp_path):
    arch, G, D = stargan_networks({"d_bias": False, "d_slope": 0.2})
    state = fluid_stargan(G, D)
    assert {"g_main0_w", "g_main0_norm_scale", "g_main.9.main3_norm_offset", "d_conv2_w"} <= set(
        state
    )
    weights.save(state | OTHERS, tmp_path / "net.pdparams")
    check(convert("stargan").read_published(tmp_path / "net.pdparams"), generator=G)
    result = convert("stargan").read_published(
        tmp_path / "net.pdparams", discriminator=tmp_path / "net.pdparams"
    )
    assert result.architecture == arch and result.family == "paddlecv"
    check(result, generator=G, discriminator=D)


# ---- AttGAN, STGAN ----

SMALL = {"image_size": 32, "c_dim": 3, "g_base_dims": 8, "d_base_dims": 8, "d_fc_dim": 6}
FC = r"fc_(adv|cls)\.[01]\.layers\.0\.weight"


def attgan_networks(**changes):
    import attgan.model as model

    arch = model.Architecture(**(SMALL | {"n_layers": 3, "slope": 0.01, "fc_slope": 0.0} | changes))
    return arch, randomize(model.Generator(arch)), randomize(model.Discriminator(arch), 1)


@pytest.mark.parametrize("shortcut_layers, inject_layers", [(1, 0), (1, 1), (0, 2), (2, 1)])
def test_elvisyjlin(convert, tmp_path, shortcut_layers, inject_layers):
    arch, G, D = attgan_networks(shortcut_layers=shortcut_layers, inject_layers=inject_layers)
    optimizer = {"state": {}, "param_groups": [{"lr": 2e-4}]}
    contents = {"G": torch_layout(G), "D": torch_layout(D, FC), "optim_G": optimizer}
    weights.save(contents, tmp_path / "weights.1.pth")
    result = convert("attgan").read_published(tmp_path / "weights.1.pth")
    assert result.architecture == arch and result.family == "elvisyjlin"
    check(result, generator=G, discriminator=D)


def test_elvisyjlins_setting_tells_what_the_weights_do_not(convert, tmp_path):
    arch, G, _ = attgan_networks(fc_slope=0.01)
    (tmp_path / "checkpoint").mkdir()
    path = tmp_path / "checkpoint" / "weights.1.pth"
    weights.save({"G": {f"module.{k}": v for k, v in torch_layout(G).items()}}, path)
    setting = {"img_size": 32, "attrs": ["Male", "Young", "Bald"], "dis_fc_acti": "lrelu"}
    (tmp_path / "setting.txt").write_text(json.dumps(setting))
    result = convert("attgan").read_published(path)
    assert result.source["selected_attrs"] == ["Male", "Young", "Bald"]
    assert result.architecture.image_size == 32 and result.architecture.fc_slope == 0.01
    check(result, generator=G)
    for name, value in (("img_size", "32"), ("attrs", 3), ("dis_fc_acti", ["lrelu"])):
        (tmp_path / "setting.txt").write_text(json.dumps(setting | {name: value}))
        with pytest.raises(UserError, match=f"setting.txt: {name} cannot be"):
            convert("attgan").read_published(path)
    (tmp_path / "setting.txt").write_text("[" * 10**5)
    with pytest.raises(UserError, match="setting.txt: is no JSON"):
        convert("attgan").read_published(path)
    (tmp_path / "setting.txt").write_text("{'img_size'")
    with pytest.raises(UserError, match="setting.txt: is no JSON"):
        convert("attgan").read_published(path)


def fluid_attgan(network):
    """PaddleCV's names of AttGAN's and STGAN's weights."""
    state = {}
    for key, value in arrays(network).items():
        part, number, *middle, leaf = key.split(".")
        short = {"weight": "w", "bias": "b"}
        if part == "stu":
            name = f"generator_GRU{number}_{middle[0]}_{short[leaf]}"
        elif part.startswith("fc_"):
            name = f"discriminator{part}_{int(number) + 1}_{short[leaf]}"
        else:
            stems = {"enc_layers": "generator_Genc", "dec_layers": "generator_Gdec"}
            norm = fluid_norm("instance" if part == "conv" else "batch")
            leaf = norm[leaf] if middle[1] == "1" else short[leaf]
            name = f"{stems.get(part, 'discriminator')}{number}_{leaf}"
        state[name] = value
    return state


@pytest.mark.parametrize("dis_norm", ["instance_norm", "none"])
def test_attgan_of_paddlecv(convert, tmp_path, dis_norm):
    arch, G, D = attgan_networks(dis_norm=dis_norm)
    state = fluid_attgan(G) | fluid_attgan(D)
    assert {"generator_Genc0_norm_mean", "generator_Gdec2_b", "discriminatorfc_cls_2_w"} <= set(
        state
    )
    weights.save(state | OTHERS, tmp_path / "net.pdparams")
    result = convert("attgan").read_published(
        tmp_path / "net.pdparams", discriminator=tmp_path / "net.pdparams"
    )
    assert result.architecture == arch
    check(result, generator=G, discriminator=D)


def test_a_folder_of_paddlecv_has_a_file_for_each_network(convert, tmp_path):
    """The contents of net_G and net_D, read already; each holds the others' variables, too."""
    arch, G, D = attgan_networks()
    everything = fluid_attgan(G) | fluid_attgan(D) | OTHERS
    data = {"G": everything, "D": everything}
    read = convert("attgan")
    assert read.recognises(data)
    (tmp_path / "19").mkdir()
    result = read.read_published(tmp_path / "19", data)
    assert result.architecture == arch and result.source["file"] == "19"
    check(result, generator=G, discriminator=D)
    check(read.read_published(tmp_path / "19", {"G": everything}), generator=G)


@pytest.mark.parametrize("use_gru", [True, False])
def test_stgan_of_paddlecv(convert, tmp_path, use_gru):
    import stgan.model as model

    skips = {"n_layers": 3, "shortcut_layers": 2, "inject_layers": 2}
    skips |= {"use_gru": use_gru, "gru_n_layers": 2 if use_gru else 0}
    arch = model.Architecture(**SMALL, **skips, bn_eps=1e-5, bn_momentum=0.9)
    G = randomize(model.Generator(arch))
    D = randomize(model.Discriminator(arch), 1)
    state = fluid_attgan(G) | fluid_attgan(D)
    assert ("generator_GRU1_reset_gate_b" in state) == use_gru
    weights.save(state | OTHERS, tmp_path / "net.pdparams")
    result = convert("stgan").read_published(
        tmp_path / "net.pdparams", discriminator=tmp_path / "net.pdparams"
    )
    assert result.architecture == arch
    check(result, generator=G, discriminator=D)


# ---- SPADE ----


def spade_networks(**changes):
    import spade.model as model

    sizes = {"ngf": 2, "ndf": 2, "crop_width": 32, "crop_height": 32, "label_nc": 3}
    arch = model.Architecture(**(sizes | changes))
    return arch, randomize(model.Generator(arch)), randomize(model.Discriminator(arch), 1)


SIZES = {"crop_width": 32, "crop_height": 32, "label_nc": 3}


def test_nvlabs(convert, tmp_path):
    arch, G, D = spade_networks()
    for name, network in (("G", G), ("D", D)):
        weights.save(torch_layout(network), tmp_path / f"latest_net_{name}.pth")
    G_file, D_file = (tmp_path / f"latest_net_{name}.pth" for name in "GD")
    result = convert("spade").read_published(G_file, discriminator=D_file, **SIZES)
    assert result.architecture == arch and result.family == "nvlabs"
    check(result, generator=G, discriminator=D)
    with pytest.raises(UserError, match="maps have 5 channels, but label_nc 182, .* make 184"):
        convert("spade").read_published(G_file, discriminator=D_file)


def test_nvlabs_with_its_encoder(convert, tmp_path):
    import spade.model as model

    arch, G, _ = spade_networks(use_vae=True, z_dim=4, nef=1)
    E = randomize(model.Encoder(arch), 2)
    linear = r"fc(_mu|_var)?\.weight"
    weights.save(torch_layout(G, linear), tmp_path / "G.pth")
    weights.save(torch_layout(E, linear), tmp_path / "E.pth")
    result = convert("spade").read_published(
        tmp_path / "G.pth", encoder=tmp_path / "E.pth", **SIZES
    )
    assert (result.architecture.z_dim, result.architecture.nef) == (4, 1)
    check(result, generator=G, encoder=E)


def test_the_number_of_channels_tells_the_published_data_set(convert, tmp_path):
    import spade.model as model

    for preset, channels in (("coco", 184), ("ade20k", 151), ("cityscapes", 36)):
        labels = {"label_nc": channels, "contain_dontcare_label": False, "no_instance": True}
        _, G, _ = spade_networks(**labels)
        weights.save(torch_layout(G), tmp_path / "G.pth")
        arch = convert("spade").read_published(tmp_path / "G.pth").architecture
        expected = model.Architecture(**model.PRESETS[preset])
        assert (arch.label_nc, arch.start) == (expected.label_nc, expected.start)


def fluid_spade(network, prefix):
    state = {}
    for key, value in arrays(network).items():
        layer, leaf = key.rsplit(".", 1)
        names = {"weight_u": ".spectral_norm.w_0", "weight_v": ".spectral_norm.w_1"}
        names |= {"weight_orig": ".weight_orig", "weight": "_w", "bias": "_b"}
        names |= {"_mean": ".running_mean", "_variance": ".running_var"}
        state[prefix + layer + names[leaf]] = value
        if leaf == "_mean":  # affine in PaddleCV, and never trained
            state[f"{prefix}{layer}.weight"] = np.ones_like(value)
            state[f"{prefix}{layer}.bias"] = np.zeros_like(value)
    return state


def test_spade_of_paddlecv(convert, tmp_path):
    """Its spectral norm takes one power iteration from the stored u at every call and keeps
    nothing: our layer in eval mode has the same sigma.
    """
    arch, G, D = spade_networks(label_nc=4, contain_dontcare_label=False, d_padding=1)
    g_state = fluid_spade(G, "generator_")
    d_state = fluid_spade(D, "")
    for scale in (0, 1):
        norm = f"discriminator_{scale}.model1.0.0_norm"
        d_state |= {f"{norm}_scale": np.ones(4, "f4"), f"{norm}_offset": np.zeros(4, "f4")}
    weights.save(g_state | d_state | OTHERS, tmp_path / "net_G.pdparams")
    weights.save(d_state | g_state, tmp_path / "net_D.pdparams")
    labels = SIZES | {"label_nc": 4, "contain_dontcare_label": False}
    result = convert("spade").read_published(
        tmp_path / "net_G.pdparams", discriminator=tmp_path / "net_D.pdparams", **labels
    )
    assert result.architecture == arch and result.family == "paddlecv"
    for name, network in (("generator", G), ("discriminator", D)):
        state = result.networks[name]
        network.eval()
        for key, layer in network.named_sublayers():
            if not hasattr(layer, "weight_orig"):
                continue
            W = layer.weight_orig.numpy().reshape(layer.weight_orig.shape[0], -1)
            v = W.T @ layer.weight_u.numpy()
            v /= np.linalg.norm(v)
            u = W @ v
            u /= np.linalg.norm(u)
            np.testing.assert_array_equal(
                state[f"{key}.weight_orig"], layer.weight_orig.numpy(), err_msg=key
            )
            layer.weight_u.set_value(tensor(state[f"{key}.weight_u"]))
            layer.weight_v.set_value(tensor(state[f"{key}.weight_v"]))
            expected = W / (u @ W @ v)
            np.testing.assert_allclose(
                layer.weight().numpy().reshape(W.shape), expected, rtol=1e-4, atol=1e-6
            )
    g_state["generator_up_0.norm_s.param_free_norm.bias"][0] = 0.1
    weights.save(g_state, tmp_path / "net_G.pdparams")
    with pytest.raises(UserError, match="up_0.norm_s.param_free_norm.bias is not 0 throughout"):
        convert("spade").read_published(tmp_path / "net_G.pdparams", **labels)


# ---- what is refused ----


def test_missing_foreign_and_misshapen_entries_are_named(convert, tmp_path):
    _, G, _ = attgan_networks()
    state = torch_layout(G)
    path = tmp_path / "weights.1.pth"
    weights.save({"G": {k: v for k, v in state.items() if k != "enc_layers.1.layers.1.bias"}}, path)
    with pytest.raises(UserError, match="1 missing .enc_layers.1.layers.1.bias"):
        convert("attgan").read_published(path)
    weights.save({"G": state | {"spare.weight": np.zeros(3)}}, path)
    with pytest.raises(UserError, match="1 unexpected .spare.weight"):
        convert("attgan").read_published(path)
    weights.save({"G": state | {"enc_layers.1.layers.1.bias": np.zeros(3)}}, path)
    with pytest.raises(UserError, match="enc_layers.1.layers.1.bias: file .3,., network .16,"):
        convert("attgan").read_published(path)
    with pytest.raises(UserError, match="holds no StarGAN weights of a known family"):
        weights.save(state, path)
        convert("stargan").read_published(path)


# ---- which room's file it is ----


def test_each_room_recognises_its_own_generators(convert, tmp_path):
    import stgan.model as model

    _, star, star_D = stargan_networks()
    _, att, att_D = attgan_networks()
    arch = model.Architecture(
        **SMALL, n_layers=3, shortcut_layers=2, inject_layers=2, gru_n_layers=2
    )
    st = model.Generator(arch)
    _, spade, _ = spade_networks()
    files = {
        "stargan": [torch_layout(star), fluid_stargan(star, star_D)],
        "attgan": [{"G": torch_layout(att)}, fluid_attgan(att) | fluid_attgan(att_D)],
        "stgan": [fluid_attgan(st) | OTHERS],
        "spade": [torch_layout(spade), fluid_spade(spade, "generator_")],
    }
    for owner, contents in files.items():
        for data in contents:
            rooms = [room for room in files if convert(room).recognises(data)]
            assert rooms == [owner]
    assert not convert("stargan").recognises(torch_layout(star_D))
    assert not convert("attgan").recognises([1, 2])


@pytest.mark.parametrize("content", [3, None, [1], {"G": 3}, {"G": None}, {"G": {"w": "text"}}])
def test_contents_that_are_no_weights(paper, tmp_path, content):
    weights.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth: "):
        paper("classic_gans").convert.read_weights(tmp_path / "x.pth")
