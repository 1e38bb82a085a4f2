"""Write Pix2Pix's lists of pairs:   python scripts/make_pair_data.py --direction=A2B

Reads trainA.txt and testA.txt of DATA_DIR/DATASET, one picture a line, finds the partner of each,
such as trainB/1_B.png of trainA/1_A.jpg, and writes pix2pix_train_list and pix2pix_test_list there.
"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lists import ONE_PATH, check_folder, files_by_key, pair_key, read_list, refuse
from shared_metrics.errors import UserError
from shared_metrics.files import writing
from shared_metrics.flags import version_flag
from shared_metrics.outputs import check_file
from shared_metrics.process import command

files_of = functools.cache(files_by_key)  # each folder is searched once


def partner(path, root):
    """The picture of B of the same name as a picture of A below `root`. Raises: UserError.

    B's folder is called as A's with a last letter B, as trainA and trainB, or train/A and train/B.
    """
    parts = list(path.relative_to(root).parent.parts)
    places = [i for i, part in enumerate(parts) if part.endswith("A")]
    if not places:
        raise UserError(f"{path}: no folder of its path ends in A, so B's is not known")
    parts[places[-1]] = f"{parts[places[-1]][:-1]}B"
    folder = root.joinpath(*parts)
    key = pair_key(path, path.parent)
    if not folder.is_dir() or key not in files_of(folder):
        raise UserError(f"{path}: no {key}_B or {key} of any suffix in {folder}")
    return files_of(folder)[key]


def pair_lines(list_file, root, direction):
    """The lines "inputA<TAB>inputB" of a list of pictures of A. Raises: UserError on lone ones."""
    lines = []
    problems = []
    for (path,) in read_list(list_file, root, ONE_PATH):
        try:
            pair = (path, partner(path, root))
        except UserError as error:
            problems.append(str(error))
            continue
        names = [file.relative_to(root).as_posix() for file in pair]
        lines.append("\t".join(names if direction == "A2B" else names[::-1]))
    refuse(problems, list_file, "Add the partners, or take these lines out")
    return lines


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    version_flag(p)
    help = "A2B: A is given and B drawn; B2A: the other way round (%(default)s)"
    p.add_argument("--direction", choices=("A2B", "B2A"), default="B2A", help=help)
    p.add_argument("--dataset", default="cityscapes", help="name of the set (%(default)s)")
    p.add_argument("--data_dir", default="./data", help="where its folder is (%(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace lists with other lines")
    return p.parse_args(argv)


def main(argv=None):
    """Write both lists; a set without testA.txt gets the first alone."""
    args = parse_args(argv)
    root = check_folder(Path(args.data_dir) / args.dataset)
    for split in ("train", "test"):
        source = root / f"{split}A.txt"
        if split == "test" and not source.exists():
            print(f"{source}: not there, so no list of test pairs")
            continue
        lines = pair_lines(source, root, args.direction)
        target = root / f"pix2pix_{split}_list"
        text = "".join(f"{line}\n" for line in lines)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            check_file(target, overwrite=args.overwrite)
        with writing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{target}: {len(lines):,} pairs, {args.direction}")


if __name__ == "__main__":
    command(main)()
