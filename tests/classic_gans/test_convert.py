"""convert.py: every family's files, written here, come back as the same numbers under our names."""

import re

import numpy as np
import paddle
import pytest

from shared_metrics import weights
from shared_metrics.errors import UserError
from tests.classic_gans import layers, paddlecv
from tests.conftest import run_cli, shared_dir
from tests.shared_metrics.fluid import variable


@pytest.fixture
def rooms(paper):
    return paper("classic_gans")


@pytest.fixture
def convert(rooms):
    return rooms.convert


def random_state(network, seed=0):
    return {key: value.astype("float32") for key, value in layers.state_of(network, seed).items()}


def torch_names(state):
    """A state as torch holds it: other names of BatchNorm's averages, and a counter for each."""
    result = {}
    for key, value in state.items():
        key = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        result[key] = value
        if key.endswith("running_var"):
            result[key.replace("running_var", "num_batches_tracked")] = np.int64(7)
    return result


def save_folder(folder, state):
    """PaddlePaddle 1.x: a file for each variable."""
    folder.mkdir(parents=True)
    for name, value in state.items():
        (folder / name).write_bytes(variable(value))
    return folder


def assert_equal(read, states):
    assert read.networks.keys() == states.keys()
    for net, state in states.items():
        assert read.networks[net].keys() == state.keys()
        for key, value in state.items():
            np.testing.assert_array_equal(read.networks[net][key], value, err_msg=f"{net} {key}")


# ---- the authors' files


def test_the_authors_generator_draws_the_same(convert):
    folder = shared_dir("parity/pix2pix_junyanz")
    read = convert.read_published(folder / "latest_net_G.pth", "pix2pix")
    arch = read.architecture
    assert (arch.net_G, arch.g_base_dims, arch.norm_type) == ("unet_128", 8, "batch_norm")
    assert arch.dropout and not arch.legacy and read.family == "junyanz"
    assert any("dropout True (not in the file" in note for note in read.notes)
    from pix2pix.model import Generator

    G = Generator(arch)
    weights.load_into(G, read.networks["generator"], "generator", "the file")
    G.eval()
    cases = np.load(folder / "cases.npz")
    drawn = G(paddle.to_tensor(cases["in/A"])).numpy()
    np.testing.assert_allclose(drawn, cases["eval/G_fake_B"], atol=1e-4)


def test_the_authors_discriminator_and_both_in_their_folder(convert):
    folder = shared_dir("parity/pix2pix_junyanz")
    read = convert.read_published(folder / "latest_net_D.pth", "Pix2pix")
    assert list(read.networks) == ["discriminator"]
    assert (read.architecture.net_D, read.architecture.d_base_dims) == ("basic", 8)
    both = convert.read_published(folder)
    assert sorted(both.networks) == ["discriminator", "generator"]
    assert both.architecture.net_G == "unet_128" and len(both.source["sha256"]) == 64


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("norm_type", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("net_G", ["resnet_6block", "resnet_9block", "unet_256"])
def test_generators_by_their_shapes(convert, tmp_path, net_G, norm_type, dropout):
    from pix2pix.model import Architecture, Generator

    arch = Architecture(net_G, g_base_dims=2, input_nc=1, norm_type=norm_type, dropout=dropout)
    state = random_state(Generator(arch))
    weights.save(torch_names(state), tmp_path / "x.pth")
    read = convert.read_published(tmp_path / "x.pth", "Pix2pix")
    assert_equal(read, {"generator": state})
    if net_G == "unet_256":  # in which dropout leaves no trace
        dropout = True
    assert read.architecture == Architecture(
        net_G, g_base_dims=2, input_nc=1, norm_type=norm_type, dropout=dropout
    )


@pytest.mark.parametrize("net_D, d_nlayers", [("basic", 3), ("nlayers", 2), ("pixel", 3)])
def test_discriminators_by_their_shapes(convert, tmp_path, net_D, d_nlayers):
    from pix2pix.model import Architecture, Discriminator

    arch = Architecture(net_D=net_D, d_nlayers=d_nlayers, d_base_dims=2, input_nc=1)
    state = random_state(Discriminator(arch))
    weights.save(torch_names(state), tmp_path / "x.pth")
    read = convert.read_published(tmp_path / "x.pth", "Pix2pix")
    assert_equal(read, {"discriminator": state})
    assert read.architecture == arch


def test_old_files_with_statistics_of_instance_norm(convert, tmp_path):
    """And with the prefix of torch's DataParallel, as the first published CycleGANs have."""
    from cyclegan.model import Architecture, Generator

    arch = Architecture("resnet_6block", g_base_dims=2)
    state = random_state(Generator(arch, 3, 3))
    old = {}
    for key, value in state.items():
        old[f"module.{key}"] = value
        layer, _, leaf = key.rpartition(".")
        if leaf == "bias" and layer != "model.23":
            norm = ".".join([*layer.split(".")[:-1], str(int(layer.split(".")[-1]) + 1)])
            old[f"module.{norm}.running_mean"] = np.ones(len(value), np.float32)
            old[f"module.{norm}.running_var"] = np.ones(len(value), np.float32)
            old[f"module.{norm}.num_batches_tracked"] = np.int64(3)
    weights.save(old, tmp_path / "horse2zebra.pth")
    read = convert.read_published(tmp_path / "horse2zebra.pth", "cyclegan")
    assert_equal(read, {"generator_A": state})
    assert read.architecture == arch


# What the authors' scripts fetch, as it is called there and where it lands.
AUTHORS = [f"{name}.pth" for name in (
    *("apple2orange", "orange2apple", "summer2winter_yosemite", "winter2summer_yosemite"),
    *("horse2zebra", "zebra2horse", "monet2photo", "style_monet", "style_cezanne", "style_ukiyoe"),
    *("style_vangogh", "sat2map", "map2sat", "cityscapes_photo2label", "cityscapes_label2photo"),
    *("facades_photo2label", "facades_label2photo", "iphone2dslr_flower", "latest_net_G"),
)]  # fmt: skip


def test_a_generator_of_a_cyclegan_by_its_name(convert, tmp_path, capsys):
    """Published alone, it draws B from A; nothing but its name tells G_A from G_B."""
    from cyclegan.model import Architecture, Generator

    state = random_state(Generator(Architecture("resnet_6block", g_base_dims=1), 3, 3))
    weights.save(state, tmp_path / "file")

    def read(name):
        path = (tmp_path / "file").rename(tmp_path / name)
        networks = list(convert.read_published(path, "CycleGAN").networks)
        path.rename(tmp_path / "file")
        return networks, capsys.readouterr().err

    for name in [*AUTHORS, "latest_net_G_A.pth", "5_net_G_A.pth"]:
        assert read(name) == (["generator_A"], ""), name
    assert read("latest_net_G_B.pth") == (["generator_B"], "")
    networks, warning = read("mine.pth")
    assert networks == ["generator_A"] and re.match("warning: .*mine.pth: .*G_A or G_B", warning)


def test_a_folder_of_four_networks(convert, tmp_path):
    """Domain A is grey: each network stands where its channels fit."""
    from cyclegan.model import Architecture, networks

    arch = Architecture("resnet_6block", g_base_dims=2, d_base_dims=2, input_nc=1)
    states = {name: random_state(net) for name, net in networks(arch).items()}
    for name, state in states.items():
        kind, _, domain = name.partition("_")
        weights.save(state, tmp_path / f"latest_net_{kind[0].upper()}_{domain}.pth")
        weights.save(state, tmp_path / f"5_net_{kind[0].upper()}_{domain}.pth")
    read = convert.read_published(tmp_path)
    assert_equal(read, states)
    assert read.architecture == arch and read.source["model_net"] == "CycleGAN"
    alone = convert.read_published(tmp_path / "latest_net_G_B.pth", "CycleGAN")
    assert_equal(alone, {"generator_B": states["generator_B"]})
    assert (alone.architecture.input_nc, alone.architecture.output_nc) == (1, 3)


# ---- PaddleGAN


def test_paddlegan_holds_a_dict_of_networks(convert, tmp_path):
    from cyclegan.model import Architecture, networks

    arch = Architecture("resnet_6block", g_base_dims=2, d_base_dims=2)
    states = {name: random_state(net) for name, net in networks(arch).items()}
    theirs = {"epoch": 200}
    for name, state in states.items():
        kind, _, domain = name.partition("_")
        part = theirs[f"net{kind[0].upper()}_{domain}"] = dict(state)
        if kind == "generator":
            part["model.2.scale"] = np.ones(2, np.float32)
            part["model.2.bias"] = np.zeros(2, np.float32)
    weights.save(theirs, tmp_path / "CycleGAN_horse2zebra.pdparams")
    read = convert.read_published(tmp_path / "CycleGAN_horse2zebra.pdparams")
    assert_equal(read, states)
    assert read.family == "paddlegan" and read.architecture == arch
    theirs["netG_A"]["model.2.scale"][1] = 0.5
    weights.save(theirs, tmp_path / "other.pdparams")
    with pytest.raises(UserError, match="model.2.scale is not 1"):
        convert.read_published(tmp_path / "other.pdparams")


def test_paddlegan_pix2pix(convert, tmp_path):
    from pix2pix.model import Architecture, Discriminator, Generator

    arch = Architecture("unet_256", g_base_dims=1, d_base_dims=2)
    states = {"generator": random_state(Generator(arch))}
    states["discriminator"] = random_state(Discriminator(arch))
    theirs = {"netG": states["generator"], "netD": states["discriminator"]}
    weights.save(theirs, tmp_path / "Pix2Pix_cityscapes.pdparams")
    read = convert.read_published(tmp_path / "Pix2Pix_cityscapes.pdparams")
    assert_equal(read, states)
    assert read.architecture == arch and read.family == "paddlegan"


# ---- PaddleCV, both eras


OPTIMIZER = {
    "generator_unet256_u0_down_conv_w_net_G_moment1_0": np.zeros(3, np.float32),
    "generator_unet256_u0_down_conv_w_net_G_beta1_pow_acc_0": np.ones(1, np.float32),
    "learning_rate_0": np.ones(1, np.float32),
    "@LR_DECAY_COUNTER@": np.ones(1, np.int64),
}


@pytest.mark.parametrize("era", ["folder", "pdparams"])
@pytest.mark.parametrize("net_G, levels", [("unet_256", 8), ("unet_128", 7)])
def test_paddlecv_pix2pix(convert, tmp_path, era, net_G, levels):
    """net_G also holds D and the optimizer; D counts from its own file."""
    from pix2pix.model import Architecture, Discriminator, Generator

    arch = Architecture(net_G, g_base_dims=2, d_base_dims=2, dropout=False, legacy=True)
    G = random_state(Generator(arch))
    D = random_state(Discriminator(arch))
    other_D = random_state(Discriminator(arch), seed=1)
    d_names = paddlecv.basic("discriminator")
    g_file = paddlecv.renamed(G, paddlecv.unet("generator", levels)) | OPTIMIZER
    g_file |= paddlecv.renamed(other_D, d_names)
    d_file = paddlecv.renamed(D, d_names)
    for name, state in (("net_G", g_file), ("net_D", d_file)):
        if era == "folder":
            save_folder(tmp_path / "199" / name, state)
        else:
            (tmp_path / "199").mkdir(exist_ok=True)
            weights.save(state, tmp_path / "199" / f"{name}.pdparams")
            (tmp_path / "199" / f"{name}.pdopt").write_bytes(b"the optimizer")
    read = convert.read_published(tmp_path / "199")
    assert_equal(read, {"generator": G, "discriminator": D})
    assert read.architecture == arch and read.family == "paddlecv"
    assert read.source["file"] == "199" and len(read.source["sha256"]) == 64
    one = tmp_path / "199" / ("net_G" if era == "folder" else "net_G.pdparams")
    alone = convert.read_published(one)
    assert_equal(alone, {"generator": G})
    left_out = len(OPTIMIZER) + len(other_D)
    assert any(note.startswith(f"{left_out} variables left out") for note in alone.notes)


@pytest.mark.parametrize("norm_type", ["batch_norm", "instance_norm"])
def test_paddlecv_cyclegan(convert, tmp_path, norm_type):
    from cyclegan.model import Architecture, networks

    arch = Architecture(
        "resnet_9block", g_base_dims=2, d_base_dims=2, norm_type=norm_type, legacy=True
    )
    states = {name: random_state(net, i) for i, (name, net) in enumerate(networks(arch).items())}
    theirs = {"generator_A": paddlecv.resnet("GA", 9), "generator_B": paddlecv.resnet("GB", 9)}
    theirs |= {"discriminator_A": paddlecv.basic("DA"), "discriminator_B": paddlecv.basic("DB")}
    theirs = {name: paddlecv.renamed(states[name], names) for name, names in theirs.items()}
    G = theirs["generator_A"] | theirs["generator_B"]
    save_folder(tmp_path / "net_G", G | theirs["discriminator_A"])
    save_folder(tmp_path / "net_DA", theirs["discriminator_A"])
    save_folder(tmp_path / "net_DB", theirs["discriminator_B"])
    read = convert.read_published(tmp_path)
    assert_equal(read, states)
    assert read.architecture == arch


def test_paddlecv_cgan(convert, tmp_path):
    from cgan.model import Architecture, Discriminator, Generator

    arch = Architecture(28, noise_size=5, g_base_dims=3, d_base_dims=2, legacy=True)
    G = random_state(Generator(arch))
    D = random_state(Discriminator(arch))
    g_names = ("l1", "l1_norm", "l2", "l2_norm", "dc1", "dc1_norm", "dc2")
    d_names = ("l1", "l2", "l2_norm", "l3", "l3_norm", "l4")
    save_folder(tmp_path / "net_G", paddlecv.renamed(G, paddlecv.digits("G", g_names)))
    save_folder(tmp_path / "net_D", paddlecv.renamed(D, paddlecv.digits("D", d_names)))
    read = convert.read_published(tmp_path)
    assert_equal(read, {"generator": G, "discriminator": D})
    assert read.architecture == arch and read.source["model_net"] == "CGAN"


def test_paddlecv_dcgan(convert, tmp_path):
    from dcgan.model import Architecture, networks

    arch = Architecture(image_size=28, noise_size=5, g_base_dims=2, d_base_dims=3)
    G, D = map(random_state, networks(arch))
    g_names = ("l1", "l1_norm", "l2", "l2_norm", "dc1", "dc2")
    d_names = ("c1", "c2", "c2_bn", "l1", "l1_norm", "l2")
    file = paddlecv.renamed(G, paddlecv.digits("G", g_names))
    weights.save(file, tmp_path / "net_G.pdparams")
    read = convert.read_published(tmp_path / "net_G.pdparams")
    assert_equal(read, {"generator": G})
    assert (read.architecture.image_size, read.architecture.noise_size) == (28, 5)
    weights.save(paddlecv.renamed(D, paddlecv.digits("D", d_names)), tmp_path / "net_D.pdparams")
    assert_equal(convert.read_published(tmp_path), {"generator": G, "discriminator": D})
    assert convert.read_published(tmp_path).architecture == arch


# ---- what cannot be read


@pytest.fixture
def resnet(rooms, tmp_path):
    """A function that saves a small ResNet with changes to its state, under a given name."""
    from cyclegan.model import Architecture, Generator

    state = random_state(Generator(Architecture("resnet_6block", g_base_dims=2), 3, 3))

    def save(**changes):
        left = {key: value for key, value in (state | changes).items() if value is not None}
        weights.save(left, tmp_path / "x.pth")
        return tmp_path / "x.pth"

    return save


def test_files_that_do_not_fit(convert, resnet):
    def told(model_net="CycleGAN", **changes):
        with pytest.raises(UserError) as error:
            convert.read_published(resnet(**changes), model_net)
        return str(error.value)

    assert "give --model_net" in told("")
    assert "--model_net FastGAN: unknown; take one of CGAN" in told("FastGAN")
    assert "no CGAN weights of a known family" in told("cgan")
    assert "1 missing (model.4.bias)" in told(**{"model.4.bias": None})
    assert "1 unexpected (model.4.scales)" in told(**{"model.4.scales": np.zeros(2, np.float32)})
    assert "model.4.bias: file (3,), network (4,)" in told(
        **{"model.4.bias": np.zeros(3, np.float32)}
    )
    assert "lacks model.1.weight" in told(**{"model.1.weight": None})
    more = {"model.99.conv_block.1.weight": np.zeros([8, 8, 3, 3], np.float32)}
    assert "7 blocks; known are 6 (resnet_6block) and 9" in told(**more)
    assert "no CycleGAN weights" in told(**{"text": "not an array"})


def test_what_is_no_weights(convert, tmp_path):
    for content in ([1, 2], {"a": {"b": 1}}, {}):
        weights.save(content, tmp_path / "x.pdparams")
        with pytest.raises(UserError, match="x.pdparams"):
            convert.read_published(tmp_path / "x.pdparams", "Pix2pix")
    weights.save({"architecture": {}, "generator": {}}, tmp_path / "own.pdparams")
    with pytest.raises(UserError, match="in this repository's layout already"):
        convert.read_published(tmp_path / "own.pdparams", "Pix2pix")
    weights.save({"netG": {"a": np.zeros(1)}}, tmp_path / "net_G.pdparams")
    with pytest.raises(UserError, match="net_G.pdparams: holds several networks"):
        convert.read_published(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no variables"):
        convert.read_published(tmp_path / "empty")


def test_the_command(resnet, tmp_path):
    source = resnet()
    out = tmp_path / "out.pdparams"
    done = run_cli("classic_gans", "convert.py", "--model_net=CycleGAN", source, out)
    assert "CycleGAN of junyanz: generator_A" in done.stdout and "wrote" in done.stdout
    saved = weights.load(out)
    assert saved["architecture"]["net_G"] == "resnet_6block"
    assert saved["source"]["model_net"] == "CycleGAN" and "generator_A" in saved
    failed = run_cli("classic_gans", "convert.py", source, f"{out}.new", code=2)
    assert "give --model_net" in failed.stderr and failed.stderr.count("\n") == 1
    same = ["convert.py", "--model_net=CycleGAN", source, source]
    assert "is the source itself" in run_cli("classic_gans", *same, code=2).stderr


def test_a_flag_of_another_room(convert, resnet):
    with pytest.raises(UserError, match="--discriminator: CycleGAN has no such flag"):
        convert.read_published(resnet(), "cyclegan", discriminator="D.pth")


def test_rooms_recognise_their_own_alone(convert, tmp_path):
    """Networks of another kind under the names G and D are nobody's."""
    weights.save({"G": {"enc_layers.0": np.zeros(1)}, "D": {}}, tmp_path / "weights.5.pth")
    with pytest.raises(UserError, match="does not tell its model; give --model_net"):
        convert.read_published(tmp_path / "weights.5.pth")
