"""Colour masks -> label maps: every pixel gets its colour's id, nothing is guessed, nothing
replaced.
"""

import json

import numpy as np
import pytest
from PIL import Image

from shared_metrics.errors import UserError

COLOURS = np.array([[10, 200, 30], [0, 0, 255], [255, 0, 0], [1, 2, 3]], np.uint8)
PALETTE = {"#0ac81e": 7, "#0000FF": 2, "#ff0000": 0, "#010203": 255}
IDS = np.array([7, 2, 0, 255])


@pytest.fixture
def recolour(paper):
    return paper("gaugan_simam").recolour


@pytest.fixture
def which():
    return np.random.default_rng(0).choice(4, (9, 13), p=[0.6, 0.25, 0.1, 0.05])


@pytest.fixture
def masks(tmp_path, which):
    """Folder with a mask of each mode that keeps colours; the one in a sub-folder has an alpha
    channel.
    """
    folder = tmp_path / "masks"
    (folder / "sub").mkdir(parents=True)
    image = Image.fromarray(COLOURS[which])
    image.save(folder / "rgb.png")
    image.quantize(4, dither=Image.Dither.NONE).save(folder / "palette.bmp")
    image.putalpha(Image.fromarray((40 * which).astype(np.uint8)))
    image.save(folder / "sub" / "alpha.PNG")
    return folder


def palette_file(folder, entries):
    (folder / "palette.json").write_text(
        entries if isinstance(entries, str) else json.dumps(entries)
    )
    return folder / "palette.json"


def test_masks_become_maps_that_the_data_set_reads(recolour, paper, masks, tmp_path, which):
    out = tmp_path / "ids"
    recolour.main(
        [str(masks), "--palette", str(palette_file(tmp_path, PALETTE)), "--output_dir", str(out)]
    )
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert names == ["palette.png", "rgb.png", "sub/alpha.png"]
    read_ids = paper("gaugan_simam").dataset.read_ids
    for name in names:
        assert np.array_equal(read_ids(out / name), IDS[which])
        assert np.array_equal(
            np.asarray(Image.open(out / name).convert("RGB")), COLOURS[which]
        )  # looks like the mask


def test_ids_above_255_take_16_bits(recolour, paper, masks, tmp_path, which):
    palette = palette_file(tmp_path, PALETTE | {"#0ac81e": 300})
    recolour.main([str(masks), "--palette", str(palette), "--output_dir", str(tmp_path / "ids")])
    expected = np.where(which == 0, 300, IDS[which])
    assert np.array_equal(
        paper("gaugan_simam").dataset.read_ids(tmp_path / "ids" / "rgb.png"), expected
    )


def test_the_listed_colours_are_a_palette(recolour, masks, tmp_path, capsys, which):
    recolour.main([str(masks)])
    found = recolour.read_palette(palette_file(tmp_path, capsys.readouterr().out))
    # In the order of their values, whatever masks there are and however often each occurs.
    assert list(found) == sorted(int.from_bytes(colour.tobytes(), "big") for colour in COLOURS)
    assert list(found.values()) == [0, 1, 2, 3]


def test_a_colour_without_id(recolour, masks, tmp_path, which):
    """An error that names file, colour and share, before any map is written; or the id asked
    for.
    """
    Image.fromarray(COLOURS[[[0, 2]]]).save(masks / "a_good_one.png")
    flags = [str(masks), "--palette", str(palette_file(tmp_path, {"#0ac81e": 7, "#ff0000": 0}))]
    share = (which == 1).mean()
    with pytest.raises(
        UserError, match=rf"palette\.bmp: colour #0000ff \({share:.1%} of .* nor are 1 more"
    ):
        recolour.main([*flags, "--output_dir", str(tmp_path / "ids")])
    assert not list(tmp_path.glob("ids/*"))
    recolour.main([*flags, "--output_dir", str(tmp_path / "ids"), "--others", "255"])
    ids = np.asarray(Image.open(tmp_path / "ids" / "rgb.png"))
    assert np.array_equal(ids, np.array([7, 255, 0, 255])[which])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "not a readable JSON file"),
        ([[1, 2, 3]], 'expected {"#rrggbb": id'),
        ({}, 'expected {"#rrggbb": id'),
        ({"red": 1}, "'red' is no colour"),
        ({"#ff0000": True}, "#ff0000 has True"),
        ({"#ff0000": -1}, "#ff0000 has -1"),
        ({"#ff0000": 70000}, "#ff0000 has 70000"),
    ],
)
def test_bad_palettes(recolour, tmp_path, entries, message):
    with pytest.raises(UserError) as error:
        recolour.read_palette(palette_file(tmp_path, entries))
    assert "palette.json" in str(error.value) and message in str(error.value)


def test_what_is_no_mask(recolour, masks, tmp_path):
    palette = str(palette_file(tmp_path, PALETTE))
    with pytest.raises(UserError, match="--output_dir is missing"):
        recolour.main([str(masks), "--palette", palette])
    with pytest.raises(UserError, match="--others 65536: give a whole number"):
        recolour.main(
            [
                str(masks),
                "--palette",
                palette,
                "--output_dir",
                str(tmp_path / "ids"),
                "--others",
                "65536",
            ]
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no images"):
        recolour.main([str(tmp_path / "empty")])
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "empty" / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png: more than 1000 colours"):
        recolour.main([str(tmp_path / "empty")])
    Image.fromarray(noise).save(masks / "z.jpg")
    with pytest.raises(UserError, match=r"z\.jpg: \.jpg changes colours"):
        recolour.main([str(masks)])


def test_nothing_is_replaced(recolour, masks, tmp_path):
    flags = [
        str(masks),
        "--palette",
        str(palette_file(tmp_path, PALETTE)),
        "--output_dir",
        str(tmp_path / "ids"),
    ]
    recolour.main(flags)
    with pytest.raises(UserError, match=r"exists already; give another --output_dir"):
        recolour.main(flags)
    Image.new("RGB", (4, 4)).save(masks / "rgb.bmp")
    with pytest.raises(UserError, match=r"rgb\.png: rgb\.bmp bears the same name"):
        recolour.main([*flags[:-1], str(tmp_path / "others")])
