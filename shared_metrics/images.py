"""Image files -> RGB, batches -> uint8, grids, PNG.

Pillow and numpy do it; matplotlib finds fonts for labels.
"""

import contextlib
import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, UnidentifiedImageError

from shared_metrics.errors import UserError
from shared_metrics.file_list import FileList
from shared_metrics.files import no_folder, open_regular, shown, writing

# fmt: off
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif",
))
# What a file may hold, whatever its name: Pillow would hand PostScript to a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
# Folders that storage and operating systems make beside the user's (hidden ones besides).
SYSTEM_FOLDERS = frozenset((
    "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "@tmp", "__macosx",
    "$recycle.bin", "system volume information", "lost+found", "__pycache__",
))
background = (255, 255, 255)  # what transparent pictures are shown on, see `set_background`
MAX_PIXELS = 89_478_485  # where Pillow starts to warn; 256 MiB as RGB
PNG = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
TURNED = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may tell the orientation
ORIENTATION = 0x0112  # the EXIF tag, and what turns a picture upright for each of its values
UPRIGHT = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}
# Fonts with Chinese letters, from Linux, Windows and macOS.
LABEL = 60  # letters of a text on a picture
CJK_FONTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB",
    "Arial Unicode MS",
)
# What Pillow's readers raise on damaged files.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    EOFError, MemoryError, RuntimeError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)
# fmt: on


def list_images(folder):
    """Image files of a folder and its sub-folders by suffix (any case), sorted by path.

    Files and folders that are hidden or a system's are left out, links to folders followed.
    Returns: FileList, perhaps empty; its names are paths from `folder` on.
    Raises: UserError when `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: {no_folder(folder)}; give a folder of images")
    names = sorted(name for name in names_in(folder) if suffix(name) in SUFFIXES)
    return FileList.of(folder, names)


def names_in(folder):
    """Yield the files of a folder and its sub-folders, in no order, but for hidden ones and a
    system's own: strings from `folder` on, with "/" between folders.
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a parent would go round for ever
            folders.clear()
            continue
        seen.add(real)
        inner = Path(place).relative_to(folder).as_posix()
        start = "" if inner == "." else f"{inner}/"
        yield from (start + name for name in files if name[0] != ".")
        folders[:] = filter(counts, folders)  # in place: os.walk goes on with what this holds


def suffix(name):
    """What a file's name ends with from its last dot on, in lower case."""
    return os.path.splitext(name)[1].lower()


def sub_folders(folder):
    """The sub-folders of a folder, sorted by name, without hidden ones and a system's own."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if counts(entry.name) and _is_folder(entry))


def _is_folder(entry):
    """Whether an entry of a folder is one; only a link has to be looked at for that."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry).is_dir())


def counts(name):
    """Whether a folder of that name may hold the user's data: it is not hidden, nor a system's."""
    return name[0] != "." and name.casefold() not in SYSTEM_FOLDERS


@contextlib.contextmanager
def opened(path, what="image"):
    """A picture's file for a with-block: PIL image whose header is read, its pixels not yet.

    Args: what, the word for it in errors.
    Raises: UserError naming the file when it is no regular file, holds none of FORMATS or has too
        many pixels, and for what Pillow raises on damage in the block.
    """
    try:
        Image.init()  # fills OPEN; an older Pillow may lack one of the formats
        formats = [name for name in FORMATS if name in Image.OPEN]
        with open_regular(path) as file, Image.open(_pixels(file), formats=formats) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:  # as its header declares them
                raise UserError(
                    f"{path}: {width}x{height} pixels, more than the {MAX_PIXELS} allowed; "
                    "shrink or remove it"
                )
            yield image
    except UserError:  # a ValueError, so DAMAGE would catch it
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error).replace(str(path), "")
        reason = " ".join(reason.split())[:120] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it holds none of the known kinds, or is damaged"
        raise UserError(f"{path}: not a readable {what} ({reason}); replace or remove it") from None


def _pixels(file):
    """The file, or of a PNG with texts or a colour profile a copy without them: Pillow unpacks
    these first, and refuses the picture where they are large.
    """
    start = len(PNG)
    kept = [(0, start)]
    dropped = False
    if file.read(start) == PNG:
        while len(head := file.read(8 + len(TURNED[0]))) >= 8:
            size = 12 + int.from_bytes(head[:4], "big")
            if head[4:8] in PNG_TEXTS and not head[8:].startswith(TURNED):
                dropped = True
            else:
                kept.append((start, size))
            start += size
            file.seek(start)
    if dropped:
        file = io.BytesIO(b"".join(_read_at(file, *place) for place in kept))
    file.seek(0)
    return file


def _read_at(file, start, size):
    file.seek(start)
    return file.read(size)


def orientation(image):
    """The EXIF orientation of an opened picture, 1 to 8; 1 where the tag is missing or no number.

    Nothing else of the EXIF data is looked at, which editors write in many wrong ways.
    """
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1
    return value if value in UPRIGHT else 1


def read_rgb(path, min_side=None, rotate=False):
    """Read an image file as a fully loaded PIL image of mode RGB.

    Gray is repeated; what is transparent shows the `background`; of gray in 16 bits the upper 8 of
    those that it uses are kept (8, 10, 12 or 16, see `bits_used`); floats are in 0..1 where none
    is larger, else clipped to 0..255. Of animations the first frame.
    Args:
        min_side: let a JPEG decoder shrink by 2, 4 or 8 while both sides stay at least that long.
        rotate: turn the picture as its EXIF orientation says.
    Raises: UserError naming the file when it cannot be read whole or has too many pixels.
    """
    with opened(path) as image:
        if min_side:
            image.draft(None, (min_side, min_side))
        turn = UPRIGHT[orientation(image)] if rotate else None
        if turn is not None:
            image = image.transpose(turn)
        return _to_rgb(image)


def _to_rgb(image):
    if is_deep(image.mode):
        gray = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((gray >> (bits_used(gray.max()) - 8)).astype(np.uint8))
    elif image.mode == "F":
        gray = np.nan_to_num(np.asarray(image))
        scale = 255 if gray.max() <= 1 else 1
        image = Image.fromarray((gray * scale).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")  # reads the file to its end


def is_deep(mode):
    """Whether pixels of this mode are whole numbers of more than 8 bits."""
    return mode == "I" or mode.startswith("I;16")


def bits_used(top):
    """Bits of data that are stored in 16 and reach up to `top`: what cameras and scanners make."""
    return next(bits for bits in (8, 10, 12, 16) if top < 2**bits)


def set_background(colour):
    """Choose what transparent pictures are shown on, for all that this process reads.

    Args: colour, as flags.colour gives it: #rrggbb.
    """
    global background
    background = ImageColor.getrgb(colour)


def middle_square(path, side):
    """The picture in a file, its short side resized to `side` (bilinear) and the middle square cut
    out of it, turned as its EXIF orientation says: PIL image. Raises: UserError as `read_rgb`.
    """
    image = read_rgb(path, min_side=side, rotate=True)
    short = min(image.size)
    box = []
    for length in image.size:
        resized = side * length // short
        start = round((resized - side) / 2)
        box.append((start * length / resized, (start + side) * length / resized))
    (left, right), (top, bottom) = box
    # Resampling only what is kept gives the pixels of resizing all of it, and a very long picture
    # costs nothing.
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def stacks(items, read, skip_bad=False, batch=32):
    """Batches of uint8 (n, H, W, 3): the pictures of a sequence of items, `batch` items at a time.

    Args: read, function item -> PIL RGB image, all of one size; skip_bad leaves out those that
        cannot be read.
    Raises: UserError of `read` otherwise.
    """
    for i in range(0, len(items), batch):
        pictures = []
        for item in items[i : i + batch]:
            try:
                pictures.append(np.asarray(read(item)))
            except UserError:
                if not skip_bad:
                    raise
        if pictures:
            yield np.stack(pictures)


def to_uint8(x):
    """Generator output, float (N, C, H, W) in [-1, 1] -> uint8 (N, H, W, C).

    It is trunc(clamp(127.5 x + 128, 0, 255)).
    Raises: ValueError on another rank or NaN.
    Source: StyleGAN and MMGeneration, so scores are comparable.
    """
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 4 or np.isnan(x).any():
        raise ValueError(f"expected (N, C, H, W) without NaN, got shape {x.shape}")
    levels = np.clip(127.5 * x + 128, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def grid(images, columns, padding=2, row_labels=None, column_labels=None):
    """Lay images out row by row on white; image i stands in row i // columns, column i % columns.

    Args:
        images: uint8 (N, H, W, 3) or (N, H, W, 1).
        padding: pixels around each.
        row_labels, column_labels: one string a row / a column, written left of and above the images
            (column labels turned upright where one is wider than its column).
    Returns: uint8 (H', W', 3).
    Raises: ValueError on another shape or dtype, or a wrong number of labels.
    """
    images = np.asarray(images)
    pictures = images.ndim == 4 and images.dtype == np.uint8 and images.shape[3] in (1, 3)
    if not pictures or 0 in images.shape or columns < 1:
        raise ValueError(
            "expected uint8 (N, H, W, 3 or 1) and columns >= 1, "
            f"got {images.dtype} {images.shape}, {columns}"
        )
    count, height, width, _ = images.shape
    rows = -(-count // columns)  # rounded up
    for labels, needed in ((row_labels, rows), (column_labels, columns)):
        if labels is not None and len(labels) != needed:
            raise ValueError(f"{len(labels)} labels for {needed} rows or columns")
    at_left = [_label(text) for text in row_labels or ()]
    on_top = [_label(text) for text in column_labels or ()]
    if any(label.shape[1] > width for label in on_top):
        on_top = [np.rot90(label) for label in on_top]
    left = max((label.shape[1] for label in at_left), default=0)
    top = max((label.shape[0] for label in on_top), default=0)
    ys = [top + padding + row * (height + padding) for row in range(rows)]
    xs = [left + padding + column * (width + padding) for column in range(columns)]
    sheet = np.full((ys[-1] + height + padding, xs[-1] + width + padding, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y = ys[i // columns]
        x = xs[i % columns]
        sheet[y : y + height, x : x + width] = image
    # Labels against their rows and columns, in the middle of them; none where none were asked for.
    for y, label in zip(ys, at_left, strict=False):
        middle = y + (height - label.shape[0]) // 2
        _paste(sheet, label, y=middle, x=left - label.shape[1])
    for x, label in zip(xs, on_top, strict=False):
        middle = x + (width - label.shape[1]) // 2
        _paste(sheet, label, y=top - label.shape[0], x=middle)
    return sheet


def _label(text):
    """The text in black on white, uint8 (h, w, 3); of a long one, the beginning."""
    text = shown(text)
    text = text if len(text) <= LABEL else f"{text[: LABEL - 3]}..."
    font = _font(text.isascii())
    _, _, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 4, int(bottom) + 4), "white")
    ImageDraw.Draw(image).text((2, 2), text, fill="black", font=font)
    return np.asarray(image)


@functools.cache
def _font(ascii_only):
    """Pillow's own font; for letters beyond ASCII the first of CJK_FONTS that this system has."""
    if not ascii_only:
        from matplotlib.font_manager import fontManager

        files = {font.name: font.fname for font in fontManager.ttflist}
        for name in CJK_FONTS:
            if name in files:
                return ImageFont.truetype(files[name], 12)
    return ImageFont.load_default()


def _paste(sheet, label, y, x):
    """Write a label at (y, x), cut at the sheet's edges."""
    y = max(y, 0)
    x = max(x, 0)
    place = sheet[y : y + label.shape[0], x : x + label.shape[1]]
    place[:] = label[: place.shape[0], : place.shape[1]]


def save_png(array, path):
    """Write uint8 (H, W, 3), (H, W, 1) or (H, W) as PNG, atomically.

    Raises: UserError as `files.writing`.
    """
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image = Image.fromarray(array)
    with writing(path) as temporary:
        image.save(temporary, format="PNG")
