"""Lists and folders: bad lines by number, lone pictures by name, nothing that trains as a pair and
is none.
"""

import numpy as np
import pytest
from PIL import Image

from shared_metrics.errors import UserError


@pytest.fixture
def lists(paper):
    return paper("classic_gans").lists


@pytest.fixture
def folder(tmp_path):
    """trainA/{1_A,2_A}.png and trainB/{1_B.jpg,2_B.png} under a name with a blank."""
    root = tmp_path / "my set"
    for name in ("trainA/1_A.png", "trainA/2_A.png", "trainB/1_B.jpg", "trainB/2_B.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def test_tab_separated_pairs(lists, folder):
    text = "\ufefftrainA/1_A.png\ttrainB/1_B.jpg\r\n\r\ntrainA/2_A.png\ttrainB/2_B.png"
    (folder / "train.txt").write_text(text, encoding="utf-8")
    files, where = lists.paired_files(folder, "train")
    assert files == [
        (folder / "trainA/1_A.png", folder / "trainB/1_B.jpg"),
        (folder / "trainA/2_A.png", folder / "trainB/2_B.png"),
    ]
    assert where == str(folder / "train.txt")


def test_bad_lines_are_told_by_number(lists, folder):
    lines = ["trainA/1_A.png\ttrainB/1_B.jpg", "trainA/1_A.png trainB/1_B.jpg", ""]
    lines += ["trainA/1_A.png\ttrainB/9.jpg", "a\tb\tc", "\ttrainB/1_B.jpg"]
    (folder / "own.txt").write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        lists.paired_files(folder, "train", folder / "own.txt")
    text = str(error.value)
    assert "own.txt: line 2 has 1 column(s) in place of 2" in text
    assert "line 4: no file 'trainB/9.jpg'" in text and "line 5 has 3 column(s)" in text
    assert "and 1 more" in text and "inputA<TAB>inputB" in text


@pytest.mark.parametrize("content, told", [(b"\n \n", "is empty"), (b"\xd6\xd0", "UTF-8")])
def test_lists_without_lines_or_text(lists, folder, content, told):
    (folder / "own.txt").write_bytes(content)
    with pytest.raises(UserError, match=told):
        lists.read_list(folder / "own.txt", folder, lists.PAIR)


def test_missing_list(lists, folder):
    with pytest.raises(UserError, match="no.txt: cannot be read"):
        lists.read_list(folder / "no.txt", folder, lists.PAIR)


def test_one_column_names_pictures_that_hold_both(lists, folder):
    (folder / "train.txt").write_text("trainA/1_A.png\ntrainA/2_A.png\n")
    files, _ = lists.paired_files(folder, "train")
    assert files == [(folder / "trainA/1_A.png",), (folder / "trainA/2_A.png",)]


def test_domain_lists_may_have_labels_and_names_may_have_blanks(lists, folder):
    (folder / "trainA" / "a b.png").write_bytes((folder / "trainA/1_A.png").read_bytes())
    (folder / "trainA.txt").write_text("trainA/1_A.png 3\ntrainA/a b.png\n")
    files = lists.domain_files(folder, "train", "A")
    assert files == [folder / "trainA/1_A.png", folder / "trainA/a b.png"]


def test_pairs_given_as_a_domain_are_refused(lists, folder):
    (folder / "trainA.txt").write_text("trainA/1_A.png\ttrainB/1_B.jpg\n")
    with pytest.raises(UserError, match=r"line 1 has 2 column\(s\) in place of 1"):
        lists.domain_files(folder, "train", "A")


def test_folders_pair_by_name(lists, folder):
    files, where = lists.paired_files(folder, "train")
    assert files[0] == (folder / "trainA/1_A.png", folder / "trainB/1_B.jpg")
    assert len(files) == 2 and where == str(folder)
    assert lists.domain_files(folder, "train", "B") == [
        folder / "trainB/1_B.jpg",
        folder / "trainB/2_B.png",
    ]


def test_capital_letters_elsewhere_stay(lists, tmp_path):
    assert lists.pair_key(tmp_path / "A/BALA_A.png", tmp_path) == "A/BALA"
    assert lists.pair_key(tmp_path / "A/x_AB.png", tmp_path) == "A/x_AB"


def test_a_picture_without_partner_is_told(lists, folder):
    (folder / "trainB/2_B.png").rename(folder / "trainB/3_B.png")
    with pytest.raises(UserError) as error:
        lists.paired_files(folder, "train")
    assert "2_A.png has no partner" in str(error.value)
    assert "3_B.png has no partner" in str(error.value)


def test_two_pictures_of_one_name_are_told(lists, folder):
    Image.new("RGB", (8, 8)).save(folder / "trainA/1.bmp")
    with pytest.raises(UserError, match="1.bmp and 1_A.png are named alike"):
        lists.paired_files(folder, "train")


def test_a_folder_of_halves(lists, tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "train/x.png")
    files, where = lists.paired_files(tmp_path, "train")
    assert files == [(tmp_path / "train/x.png",)] and where == str(tmp_path / "train")


def test_nothing_there(lists, tmp_path):
    with pytest.raises(UserError, match="--data_dir .*no such folder.*download.py --dataset=maps"):
        lists.paired_files(tmp_path / "maps", "train")
    with pytest.raises(UserError, match="Expected train.txt.*trainA and trainB.*A[|]B"):
        lists.paired_files(tmp_path, "train")
    with pytest.raises(UserError, match="no pictures of domain B.*testB.txt"):
        lists.domain_files(tmp_path, "test", "B")


def test_unreadable_pictures_are_counted_and_can_be_left_to_the_loader(lists, folder):
    files = sorted(folder.rglob("*.*"))
    for path in files:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="1_A.png: not a readable image.*and 1 more.*--skip_bad"):
        lists.check_readable(files, "the set", skip_bad=False)
    lists.check_readable(files, "the set", skip_bad=True)
    assert dict(lists.readable_sizes(files, "the set", skip_bad=True)) == {}


def test_sizes_are_those_of_the_turned_picture(lists, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "x.jpg", exif=exif)
    assert lists.picture_size(tmp_path / "x.jpg") == (4, 8)
