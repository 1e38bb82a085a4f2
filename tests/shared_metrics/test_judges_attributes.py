"""The list of faces, and the judge of attributes that is trained on it."""

import numpy as np
import paddle
import pytest

from shared_metrics import files
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.judges import attributes
from shared_metrics.judges.__main__ import parse_args
from tests.conftest import run_cli, shared_dir

LIST = """3
Red  Lit Bald
000001.jpg -1  1 -1
 a b.png    1 -1 -1
sub/c.png  1  1 -1
"""


def written(folder, text=LIST):
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_go_by_name(tmp_path):
    names, labels = attributes.read_list(written(tmp_path), ["Lit", "Red"])
    assert names == ["000001.jpg", "a b.png", "sub/c.png"]
    assert labels.dtype == np.float32 and labels.tolist() == [[1, 0], [0, 1], [1, 1]]


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("Red", "Green", r"--attributes Red: no Red in line 2 of .*list.txt \(Green, Lit, Bald\)"),
        ("3\n", "", r"line 1: 'Red  Lit Bald', but 2 pictures follow"),
        ("3\n", "4\n", r"line 1: '4', but 3 pictures follow the line of names"),
        (LIST, "", r"line 1: '', but 0 pictures"),
        (LIST, "0\n", r"line 1: '0', but 0 pictures"),
        ("000001.jpg -1  1 -1", "000001.jpg -1  1", r"list.txt, line 3: not a file name and 3"),
        (" a b.png    1 -1 -1", "a.png 1 0 -1", r"list.txt, line 4: .* 3 values 1 or -1"),
        ("sub/c.png  1  1 -1", "\nc.png yes 1 1", r"list.txt, line 6: not a file name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, old, new, told):
    assert old in LIST
    with pytest.raises(UserError, match=told):
        attributes.read_list(written(tmp_path, LIST.replace(old, new)), ["Red"])


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--list .*none.txt: cannot be read \(No such file"):
        attributes.read_list(tmp_path / "none.txt", ["Red"])
    (tmp_path / "faces.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"faces.jpg: cannot be read \(not a text in UTF-8\)"):
        attributes.read_list(tmp_path / "faces.jpg", ["Red"])


def faces(folder, count):
    """Pictures of 10x8 px whose red and whose lower half are bright, each where the list says so;
    the flags of the command.
    """
    rng = np.random.default_rng(count)
    values = rng.integers(0, 2, (count, 2))
    lines = [str(count), "Red Lower"]
    (folder / "faces").mkdir()
    for i, (red, lower) in enumerate(values):
        picture = rng.integers(0, 100, (10, 8, 3))
        picture[..., 0] += 100 * red
        picture[5:] += 55 * lower
        save_png(picture.astype(np.uint8), folder / "faces" / f"{i}.png")
        lines.append(f"{i}.png {2 * red - 1} {2 * lower - 1}")
    path = written(folder, "\n".join(lines))
    flags = ["attributes", "--data_path", str(folder / "faces"), "--list", str(path)]
    return [*flags, "--imsize", "8", "--attributes"], values


def test_trained_from_the_command_line_it_knows_each_attribute(tmp_path):
    flags, values = faces(tmp_path, 120)
    out = tmp_path / "a.pdparams"
    flags += ["Lower,Red", *"--epochs 12 --batch_size 16 --width 4 --lr 0.01".split()]
    flags += ["--held_out", "0.2", "--device", "cpu", "--num_workers", "0", "--output", str(out)]
    done = run_cli(".", "-m", "shared_metrics.judges", *flags)
    judge = attributes.load_attributes(out)
    accuracy = judge.info["held_out_accuracy"]
    assert judge.classes == ["Lower", "Red"] and min(accuracy.values()) > 0.8
    told = f"held-out Lower {accuracy['Lower']:.4f}, Red {accuracy['Red']:.4f}"
    assert done.stdout.splitlines()[-1].endswith(told)
    assert judge.info["sha256"] == files.file_sha256(out)

    # The accuracies are those of `predict` on the very pictures that were held out.
    data, held_out = attributes.open_data(parse_args(flags))
    assert len(data) == 96 and len(held_out) == 24
    images = np.stack([held_out.load(i, None)[0] for i in range(24)])
    probabilities = judge.predict(images)
    assert probabilities.shape == (24, 2) and 0 <= probabilities.min() <= probabilities.max() <= 1
    shares = ((probabilities > 0.5) == held_out.labels).mean(0)
    assert shares.tolist() == pytest.approx([accuracy["Lower"], accuracy["Red"]])
    columns = [int(path.stem) for path in held_out.items]
    assert np.array_equal(held_out.labels, values[columns][:, ::-1])
    logits = judge.logits(images)
    assert np.allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_loss_is_the_mean_binary_cross_entropy():
    network = lambda x: x.mean([2, 3])[:, :2]  # noqa: E731
    network.eval = lambda: None
    judge = attributes.AttributeClassifier(network, 8, (0, 0, 0), (1, 1, 1), 2, ["a", "b"], {})
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 0] = 255  # logits 1 and 0
    loss = judge.loss(images, np.array([[1.0, 0.0]], np.float32))
    assert loss.item() == pytest.approx((np.log(1 + np.exp(-1)) + np.log(2)) / 2)


def test_missing_pictures_and_constant_attributes_are_told(tmp_path, capsys):
    flags, _ = faces(tmp_path, 10)
    flags += ["Red", "--output", "a"]
    attributes.open_data(parse_args(flags))
    assert "Red: " in capsys.readouterr().out
    path = tmp_path / "list.txt"
    path.write_text(path.read_text().replace(" -1 ", " 1 "))
    with pytest.raises(UserError, match="--attributes Red: all of the 9 pictures"):
        attributes.open_data(parse_args(flags))
    (tmp_path / "faces" / "7.png").unlink()
    with pytest.raises(UserError, match=r"--data_path .*: 1 of the 10 pictures of .*7.png"):
        attributes.open_data(parse_args(flags))


def test_what_all_held_out_pictures_have_has_no_accuracy(tmp_path, capsys):
    flags, _ = faces(tmp_path, 10)
    _, held_out = attributes.open_data(parse_args([*flags, "Red", "--output", "a"]))
    assert "Red: all of the 1 held-out pictures have the same value" in capsys.readouterr().out
    network = lambda x: x.mean([2, 3])[:, :1]  # noqa: E731
    network.eval = lambda: None
    judge = attributes.AttributeClassifier(network, 8, (0, 0, 0), (1, 1, 1), 1, ["Red"], {})
    assert judge.scores(held_out, 4) == {"accuracy": {}}


def test_other_files_are_refused(tmp_path):
    paddle.save({"x": np.zeros(1)}, str(tmp_path / "x.pdparams"))
    with pytest.raises(UserError, match=r"x.pdparams: not a file of `.* attributes`"):
        attributes.load_attributes(tmp_path / "x.pdparams")


def test_celebas_list_is_read():
    names, labels = attributes.read_list(
        shared_dir("data/celeba") / "list_attr_celeba.txt", ["Smiling", "Male", "Eyeglasses"]
    )
    assert len(names) == 32 and names[0] == "000001.jpg"
    assert labels.sum(0).tolist() == [16, 13, 0] and labels[0].tolist() == [1, 0, 0]
