"""Images: RGB values of every mode, damaged files named, where a grid puts what, atomic PNGs."""

import argparse
import errno
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from shared_metrics import data_check, flags, images, label_maps
from shared_metrics.errors import UserError


def image_of(mode, *pixels):
    """A row of pixels."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


def palette_image(**save):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([1, 0])
    return image


# fmt: off
# mode of the file -> (suffix, image, save options, RGB values)
MODES = {
    "1": (".png", image_of("1", 0, 1), {}, [[0] * 3, [255] * 3]),
    "L": (".png", image_of("L", 0, 200), {}, [[0] * 3, [200] * 3]),
    "LA": (".png", image_of("LA", (200, 0), (30, 128)), {}, [[255] * 3, [142] * 3]),
    "P": (".png", palette_image(), {}, [[0, 0, 255], [255, 0, 0]]),
    "P, transparent": (".png", palette_image(), {"transparency": b"\x00\x80"},
                       [[127, 127, 255], [255, 255, 255]]),
    "RGB": (".png", image_of("RGB", (1, 2, 3)), {}, [[1, 2, 3]]),
    "RGBA": (".png", image_of("RGBA", (10, 20, 30, 0), (1, 2, 3, 255)), {},
             [[255, 255, 255], [1, 2, 3]]),
    "RGB, one colour transparent": (".png", image_of("RGB", (9, 9, 9), (1, 2, 3)),
                                    {"transparency": (9, 9, 9)}, [[255] * 3, [1, 2, 3]]),
    "I;16, of 12 bits": (".png", Image.fromarray(np.array([[0, 16, 4095]], np.uint16)), {},
                         [[0] * 3, [1] * 3, [255] * 3]),
    "I;16, of 8 bits": (".png", Image.fromarray(np.array([[0, 16, 255]], np.uint16)), {},
                        [[0] * 3, [16] * 3, [255] * 3]),
    "F, up to 1": (".tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), {},
                   [[0] * 3, [127] * 3, [255] * 3]),
    "CMYK": (".tif", image_of("CMYK", (255, 0, 255, 0), (0, 0, 0, 255)), {},
             [[0, 255, 0], [0] * 3]),
    "I;16": (".png", Image.fromarray(np.array([[255, 256, 40000]], np.uint16)), {},
             [[0] * 3, [1] * 3, [156] * 3]),
    "I": (".tif", Image.fromarray(np.array([[-1, 40000, 70000]], np.int32)), {},
          [[0] * 3, [156] * 3, [255] * 3]),
    "F": (".tif", Image.fromarray(np.array([[-5, 100.75, 300]], np.float32)), {},
          [[0] * 3, [100] * 3, [255] * 3]),
}
# fmt: on


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb(tmp_path, name):
    suffix, image, options, expected = MODES[name]
    path = tmp_path / f"picture{suffix}"
    image.save(path, **options)
    with Image.open(path) as stored:
        assert stored.mode == name.split(",")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = images.read_rgb(path)
    assert read.mode == "RGB"
    assert np.asarray(read).tolist() == [expected]


def test_16_bit_pgm(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 40000, 65535))
    assert np.asarray(images.read_rgb(tmp_path / "x.pgm"))[0, :, 0].tolist() == [156, 255]


def test_animation_gives_its_first_frame_and_names_may_be_any(tmp_path):
    folder = tmp_path / "目录 ü"
    folder.mkdir()
    first = image_of("RGB", (255, 0, 0))
    second = image_of("RGB", (0, 255, 0))
    first.save(folder / "图.gif", save_all=True, append_images=[second])
    assert np.asarray(images.read_rgb(folder / "图.gif")).tolist() == [[[255, 0, 0]]]


def test_exif_orientation_only_on_request(tmp_path):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, :8] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(picture).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(images.read_rgb(tmp_path / "x.png"), picture)
    turned = np.asarray(images.read_rgb(tmp_path / "x.png", rotate=True))
    assert turned.shape == (16, 8, 3)
    assert (turned[:8] == 255).all() and (turned[8:] == 0).all()  # left has become top


def test_of_a_png_pixels_and_orientation_alone_are_read(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (8, 16, 3), np.uint8)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "x" * 3_000_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    more = {"pnginfo": info, "exif": exif, "icc_profile": b"x" * 3_000_000}
    Image.fromarray(picture).save(tmp_path / "x.png", **more)
    assert np.array_equal(images.read_rgb(tmp_path / "x.png"), picture)
    assert np.array_equal(images.read_rgb(tmp_path / "x.png", rotate=True), picture[::-1, ::-1])


@pytest.mark.parametrize(
    "tags, size",
    [
        ("0112 0002 00000002 36000000", (16, 8)),  # an orientation in letters
        ("0112 0003 00000001 00630000", (16, 8)),  # of no meaning
        ("0112 0005 00000001 7fffffff", (16, 8)),  # a ratio, far outside of the file
        ("0112 0003 00000001 00060000 011a 0005 7fffffff 7fffffff", (8, 16)),  # the next is wrong
        ("0112 0003 00000001 00060000 829a 0002 00000005 312f3630", (8, 16)),
    ],
)
def test_exif_that_editors_have_rewritten_refuses_no_picture(tmp_path, tags, size):
    entries = bytes.fromhex(tags)
    count = len(entries) // 12
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + count.to_bytes(2, "big") + entries + bytes(4)
    Image.new("RGB", (16, 8)).save(tmp_path / "x.jpg", exif=exif)
    assert images.read_rgb(tmp_path / "x.jpg", rotate=True).size == size


@pytest.mark.parametrize(
    "min_side, size", [(None, (512, 384)), (64, (128, 96)), (48, (64, 48)), (200, (512, 384))]
)
def test_jpeg_is_decoded_no_smaller_than_asked(tmp_path, min_side, size):
    Image.new("RGB", (512, 384)).save(tmp_path / "x.jpg")
    assert images.read_rgb(tmp_path / "x.jpg", min_side=min_side).size == size
    Image.new("RGB", (512, 384)).save(tmp_path / "x.png")
    assert images.read_rgb(tmp_path / "x.png", min_side=min_side).size == (512, 384)


def png_header(width, height):
    """A PNG that declares a size and holds hardly any data."""

    def chunk(kind, data):
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_a_file_starts_no_program(tmp_path, monkeypatch):
    """PostScript under a picture's name; Pillow alone would hand it to Ghostscript."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    Image.new("RGB", (4, 4)).save(tmp_path / "real.eps")
    path = (tmp_path / "real.eps").rename(tmp_path / "x.png")
    for read in (images.read_rgb, label_maps.read_ids):
        with pytest.raises(UserError, match="x.png: not a readable .*none of the known kinds"):
            read(path)
    assert not started


def test_what_is_no_regular_file_is_not_read():
    with pytest.raises(UserError, match=rf"{os.devnull}: not a readable image \(no regular file\)"):
        images.read_rgb(os.devnull)


def test_every_reader_opens_pictures_through_images():
    root = Path(images.__file__).parents[1]
    folders = ("shared_metrics", "sagan", "acgan", "gaugan_simam", "classic_gans", "scripts")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert len(files) > 50
    calls = [p for p in files if re.search(r"Image\.open\(|imread\(", p.read_text("utf-8"))]
    assert calls == [Path(images.__file__)]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_named(tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "whole.jpg")
    noise.save(tmp_path / "whole.png")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    png = (tmp_path / "whole.png").read_bytes()
    bad = {
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "header.jpg": (jpeg[:200], "not a readable image"),
        "half.png": (png[: len(png) // 2], "not a readable image"),
        "flipped.png": (png[:100] + b"\0\0\0\0" + png[104:], "not a readable image"),
        "empty.png": (b"", "not a readable image"),
        "text.png": (b"not an image", "not a readable image"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
        "large.png": (png_header(10000, 9500), "10000x9500 pixels, more than"),
        "larger.png": (png_header(14000, 13000), "pixels"),
    }
    for name, (content, reason) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            images.read_rgb(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / name}: ")
        assert reason in message and "\n" not in message
    with pytest.raises(UserError, match="no such file"):
        images.read_rgb(tmp_path / "missing.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 4095)
    with pytest.raises(UserError, match="64x64 pixels, more than the 4095 allowed"):
        images.read_rgb(tmp_path / "whole.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 4096)
    assert images.read_rgb(tmp_path / "whole.png").size == (64, 64)


def test_list_images(tmp_path):
    pictures = ("b/2.PNG", "b/10.jpeg", "a.JPG", "c/d/x.WebP")
    others = ("notes.txt", "b/._2.png", ".cache/z.png", "png")
    for name in pictures + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "linked.tiff").touch()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in images.list_images(tmp_path)]
    assert names == ["a.JPG", "b/10.jpeg", "b/2.PNG", "c/d/x.WebP", "link/linked.tiff"]
    with pytest.raises(UserError, match="a file, not a folder"):
        images.list_images(tmp_path / "a.JPG")


def test_to_uint8_truncates_and_transposes():
    values = np.array([-2, -1, -0.5, 0, 0.5, 0.996, 1, 2], np.float32)
    # 127.5 x + 128 = -127, 0.5, 64.25, 128, 191.75, 254.99, 255.5, 383
    x = np.stack([values, values[::-1]])[None, :, None, :]  # (1, 2, 1, 8)
    y = images.to_uint8(x)
    assert y.shape == (1, 1, 8, 2) and y.dtype == np.uint8
    assert y[0, 0, :, 0].tolist() == [0, 0, 64, 128, 191, 254, 255, 255]
    assert y[0, 0, :, 1].tolist() == [255, 255, 254, 191, 128, 64, 0, 0]
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256)  # a file's pixels come back
    assert np.array_equal(images.to_uint8(pixels / np.float32(127.5) - 1).ravel(), pixels.ravel())
    with pytest.raises(ValueError, match="NaN"):
        images.to_uint8(np.full((1, 3, 2, 2), np.nan))
    with pytest.raises(ValueError, match="shape"):
        images.to_uint8(np.zeros((3, 2, 2)))


def test_grid_puts_image_i_in_row_i_over_columns():
    five = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 6, 3), np.uint8)
    sheet = images.grid(five, columns=3, padding=1)
    assert sheet.shape == (1 + 2 * (4 + 1), 1 + 3 * (6 + 1), 3) and sheet.dtype == np.uint8
    rest = sheet.copy()
    for i in range(5):
        y = 1 + i // 3 * 5
        x = 1 + i % 3 * 7
        assert (sheet[y : y + 4, x : x + 6] == i).all()
        rest[y : y + 4, x : x + 6] = 255
    assert (rest == 255).all()
    gray = images.grid(five[..., :1], columns=5, padding=0)
    assert gray.shape == (4, 30, 3) and (gray[:, 6:12] == 1).all()


@pytest.mark.parametrize("has_font", [True, False])
def test_labels_beyond_ascii_take_a_font_of_this_system(monkeypatch, has_font):
    from matplotlib.font_manager import FontEntry, fontManager

    dejavu = next(font.fname for font in fontManager.ttflist if font.name == "DejaVu Sans")
    fonts = [FontEntry(fname=dejavu, name="SimHei")] if has_font else []
    monkeypatch.setattr(fontManager, "ttflist", fonts)
    images._font.cache_clear()
    try:
        expected = "DejaVu Sans" if has_font else images._font(True).getname()[0]
        assert images._font(False).getname()[0] == expected
        assert images.grid(np.zeros((1, 8, 8, 3), np.uint8), 1, row_labels=["猫 ü"]).shape[1] > 20
    finally:
        images._font.cache_clear()


def test_grid_labels_stand_left_of_their_row_and_above_their_column():
    red = np.zeros((4, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    plain = images.grid(red, columns=2)
    sheet = images.grid(red, 2, row_labels=["cat", "dog"], column_labels=["a", "b"])
    left = sheet.shape[1] - plain.shape[1]
    top = sheet.shape[0] - plain.shape[0]
    assert left > 0 and top > 0
    assert np.array_equal(sheet[top:, left:], plain)  # images where they were

    def ink(part):
        return bool((part < 128).all(axis=-1).any())

    assert ink(sheet[top + 2 : top + 34, :left]) and ink(sheet[top + 36 : top + 68, :left])
    assert ink(sheet[:top, left + 2 : left + 34]) and ink(sheet[:top, left + 36 : left + 68])
    assert not ink(sheet[:top, :left])
    upright = images.grid(red, 2, column_labels=["automobile", "b"])  # wider than 32 pixels
    assert upright.shape[0] - plain.shape[0] > 32 and upright.shape[1] == plain.shape[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": np.zeros((2, 3, 4, 4), np.uint8)},
        {"images": np.zeros((2, 4, 4, 3))},
        {"images": np.zeros((0, 4, 4, 3), np.uint8)},
        {"columns": 0},
        {"row_labels": ["one", "two"]},
        {"column_labels": ["one"]},
    ],
)
def test_grid_refuses_wrong_input(arguments):
    with pytest.raises(ValueError):
        images.grid(**{"images": np.zeros((2, 4, 4, 3), np.uint8), "columns": 2, **arguments})


def test_save_png_is_lossless_and_atomic(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = tmp_path / "grid.png"
    for shape in ((5, 7, 3), (5, 7, 1), (5, 7)):
        array = rng.integers(0, 256, shape, dtype=np.uint8)
        images.save_png(array, path)
        expected = array[..., 0] if shape[2:] == (1,) else array
        assert np.array_equal(np.asarray(Image.open(path)), expected)
    old = path.read_bytes()

    def fail(self, file, **_):
        file.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    message = r"grid\.png: cannot be written \(No space left on device; \d+ MiB free"
    with pytest.raises(UserError, match=message):
        images.save_png(array, path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["grid.png"]


def test_stacks_keep_the_order_and_leave_out_what_cannot_be_read_when_asked():
    def read(number):
        if number in (1, 3, 4, 5):
            raise UserError(f"{number}: bad")
        return Image.new("RGB", (2, 1), (number, 0, 0))

    batches = list(images.stacks(range(8), read, skip_bad=True, batch=3))
    # Of the second three none is left.
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 2], [6, 7]]
    assert batches[0].dtype == np.uint8 and batches[0].shape == (2, 1, 2, 3)
    with pytest.raises(UserError, match="1: bad"):
        list(images.stacks(range(8), read))


def test_what_is_transparent_shows_the_colour_that_a_flag_names(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "background", images.background)
    Image.new("RGBA", (1, 1), (10, 20, 30, 0)).save(tmp_path / "x.png")
    parser = argparse.ArgumentParser()
    flags.background_flag(parser.add_argument)
    for words, shown in (([], 255), (["--background", "#000000"], 0)):
        images.set_background(parser.parse_args(words).background)
        assert np.asarray(images.read_rgb(tmp_path / "x.png")).tolist() == [[[shown] * 3]]
    with pytest.raises(SystemExit):
        parser.parse_args(["--background", "glass"])


def test_pictures_that_may_be_read_otherwise_than_meant_are_told(tmp_path):
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(gray * 64).save(tmp_path / "a.png")
    Image.fromarray(gray * 1000).save(tmp_path / "b.png")  # of all 16 bits: as one would think
    Image.fromarray((gray / 64).astype(np.float32)).save(tmp_path / "c.tif")
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "d.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "e.png")
    (tmp_path / "f.png").write_bytes(b"no picture")
    lines = data_check.doubtful(images.list_images(tmp_path))
    assert lines == [
        f"1 of 6 pictures looked at hold gray of 12 bits in 16; read as 12 bits, such as "
        f"{tmp_path / 'a.png'}",
        f"1 of 6 pictures looked at hold floats, read as from 0 to 1, such as {tmp_path / 'c.tif'}",
        f"1 of 6 pictures looked at are transparent in places, which show #ffffff (--background), "
        f"such as {tmp_path / 'd.png'}",
    ]


def test_a_long_name_makes_no_wide_picture():
    """Names of classes are a file's words; a sheet is as wide as its longest label."""
    cells = np.zeros((2, 8, 8, 3), np.uint8)
    sheet = images.grid(cells, 1, row_labels=["a" * 10**6, "b"])
    assert sheet.shape[1] < 1000
