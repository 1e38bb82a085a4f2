"""Which picture files make a set: PaddleCV's list files, and the folders of Pix2Pix and CycleGAN.

Lists, names and the pictures' headers are checked at start: a run must not die of them hours later,
and a pair that is none must not train.
"""

import re
from pathlib import Path

from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.files import no_folder, read_text
from shared_metrics.images import list_images, opened, orientation

SHOWN = 3  # problems that an error names; the others it counts
ONE_PATH = {1: "one path"}
PAIR = {2: "inputA<TAB>inputB", 1: "one picture A|B"}


def refuse(problems, where, advice):
    """Raise UserError that shows the first problems and counts the others; return without any."""
    if problems:
        shown = "; ".join(problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{where}: {shown}{more}. {advice}")


def readable(data, indices, skip_bad):
    """(index, item) of a data set's items, without those that cannot be read where `skip_bad`."""
    for index in indices:
        try:
            item = data.load(index, None)
        except UserError:
            if not skip_bad:
                raise
            continue
        yield index, item


def check_folder(root, flag="--data_dir"):
    """The folder as Path. Raises: UserError naming the flag when there is none."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{flag} {root}: {no_folder(root)}. Get a published set by `python download.py "
            f"--dataset={root.name}`, or put your own pictures there"
        )
    return root


def picture_size(path):
    """(width, height) as the file's header tells, turned as its EXIF says. Raises: UserError."""
    with opened(path) as image:
        width, height = image.size
        sideways = orientation(image) >= 5
    return (height, width) if sideways else (width, height)


def check_readable(files, where, skip_bad):
    """Raise UserError naming the files that cannot be read, unless `skip_bad`."""
    for _ in readable_sizes(files, where, skip_bad):
        pass


def readable_sizes(files, where, skip_bad):
    """Yield (file, (width, height)) of the readable files.

    Raises: UserError after the last, naming those that are not, unless `skip_bad`.
    """
    problems = []
    for path in files:
        try:
            yield path, picture_size(path)
        except UserError as error:
            problems.append(str(error))
    if not skip_bad:
        refuse(problems, where, "Replace or remove them, or give --skip_bad_images")


def read_list(path, root, columns):
    """The pictures that a list names: [(Path, ...)], one tuple a line, blank lines left out.

    Args: path, a text file in UTF-8; root, the folder that its paths start from; columns, {number
        of paths in a line: what they are}, of which all lines have the same, separated by tabs. In
        a list of one column a second word, after a blank, is a label and left out.
    Raises: UserError with the numbers of the bad lines.
    """
    rows = []
    problems = []
    lines = list_lines(path)
    first = lines[0][1].count("\t") + 1
    wanted = first if first in columns else next(iter(columns))
    for number, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != wanted:
            problems.append(f"line {number} has {len(cells)} column(s) in place of {wanted}")
            continue
        if wanted == 1 and not (root / line).is_file():
            cells = [line.split(" ")[0]]
        rows.append(tuple(root / cell for cell in cells))
        problems += [f"line {number}: no file {c!r}" for c in cells if not (root / c).is_file()]
    kinds = ", or in all lines ".join(columns.values())
    refuse(problems, path, f"A line holds {kinds}; paths start from {root}")
    return rows


def list_lines(path):
    """[(number from 1, text)] of the lines of a list that are not blank. Raises: UserError."""
    try:
        text = read_text(Path(path).expanduser())
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; save it as one") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a list file") from None
    lines = [(n, line.rstrip().lstrip(" ")) for n, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UserError(f"{path}: the list is empty")
    return lines


def pair_key(path, folder):
    """What the two pictures of a pair share: the path without suffix and a closing _A or _B."""
    relative = path.relative_to(folder)
    return relative.with_name(re.sub(r"_[AB]$", "", relative.stem)).as_posix()


def files_by_key(folder):
    """{pair_key: Path} of a folder's pictures. Raises: UserError on two of one key, or on none."""
    files = {}
    problems = []
    for path in list_images(folder):
        key = pair_key(path, folder)
        if key in files:
            problems.append(f"{files[key].name} and {path.name} are named alike")
        files[key] = path
    refuse(problems, folder, "Each picture needs a name of its own, whatever its suffix")
    if not files:
        raise UserError(f"{folder}: no pictures in this folder{why_empty(folder)}")
    return files


def pair_folders(folder_a, folder_b):
    """[(A, B)]: the pictures of two folders that share a name. Raises: UserError on a lone one."""
    files_a = files_by_key(folder_a)
    files_b = files_by_key(folder_b)
    problems = [f"{files_a[key]} has no partner" for key in files_a if key not in files_b]
    problems += [f"{files_b[key]} has no partner" for key in files_b if key not in files_a]
    advice = "Partners share their name but for the suffix and a closing _A or _B"
    refuse(problems, f"{folder_a} and {folder_b}", advice)
    return [(files_a[key], files_b[key]) for key in files_a]


def list_path(text, root):
    """The list file that a flag names, from here or from the data set's folder; "" for none."""
    path = Path(text).expanduser()
    if text and not path.is_file() and (root / text).is_file():
        return root / text
    return text and path


def has_split(root, split):
    """Whether a data set has a list or a folder of a split, "train" or "test"."""
    return any((root / f"{split}{end}").exists() for end in (".txt", "A.txt", "A", ""))


def paired_files(root, split, list_file=None, flag="--data_dir"):
    """([(A, B)] or [(AB,)], what they were read from) of a split, "train" or "test".

    The first that is there of: list_file; ROOT/<split>.txt; the folders ROOT/<split>A and
    ROOT/<split>B, paired by name; the folder ROOT/<split> of pictures A|B. Raises: UserError.
    """
    root = check_folder(root, flag)
    folder = root / split
    folder_a = root / f"{split}A"
    folder_b = root / f"{split}B"
    if not list_file and (root / f"{split}.txt").is_file():
        list_file = root / f"{split}.txt"
    if list_file:
        return read_list(list_file, root, PAIR), str(list_file)
    if folder_a.is_dir() and folder_b.is_dir():
        return pair_folders(folder_a, folder_b), str(root)
    if folder.is_dir() and (files := list_images(folder)):
        return [(path,) for path in files], str(folder)
    raise UserError(
        f"{flag} {root}: no pairs in it. Expected {split}.txt with inputA<TAB>inputB in each line, "
        f"folders {split}A and {split}B, or a folder {split} of pictures A|B"
    )


def domain_files(root, split, domain, flag="--data_dir"):
    """The pictures of a domain, "A" or "B", of a split: ROOT/trainA.txt, else the folder trainA."""
    root = check_folder(root, flag)
    name = f"{split}{domain}"
    if (root / f"{name}.txt").is_file():
        return [path for (path,) in read_list(root / f"{name}.txt", root, ONE_PATH)]
    if (root / name).is_dir() and (files := list_images(root / name)):
        return files
    raise UserError(
        f"{flag} {root}: no pictures of domain {domain} in it. Expected {name}.txt with one path "
        f"in each line, or a folder {name}"
    )
