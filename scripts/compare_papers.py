"""Put runs side by side: a table a data set, ranked where they were measured alike, with samples
and curves.

    python scripts/compare_papers.py RESULTS... [--output_dir comparison]

RESULTS are folders, searched for the results.json that every test.py writes, or such files. Written
are index.html (one file that needs no network), comparison.md and comparison.csv. A record that is
broken or foreign is named and left out.
"""

import argparse
import sys

from shared_metrics.comparison.page import page
from shared_metrics.comparison.records import find
from shared_metrics.comparison.text import comma_separated, markdown, tables
from shared_metrics.errors import UserError
from shared_metrics.files import shown, writing
from shared_metrics.flags import version_flag
from shared_metrics.outputs import check_folder, lock_folders
from shared_metrics.process import command


def main(argv=None):
    """Read, rank, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    version_flag(parser)
    parser.add_argument("results", nargs="+", help="folders searched for results.json, or files")
    parser.add_argument("--output_dir", default="comparison", help="(default: comparison)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier comparison")
    args = parser.parse_args(argv)
    folder = check_folder(args.output_dir)
    paths = [folder / name for name in ("index.html", "comparison.md", "comparison.csv")]
    old = [path for path in paths if path.exists()]
    if old and not args.overwrite:
        raise UserError(
            f"--output_dir {folder}: holds {old[0].name} already; name another, or give --overwrite"
        )
    results, failures, notes = find(args.results)
    comparison = tables(results)
    texts = [page(comparison, failures, notes)]
    texts += [markdown(comparison, failures, notes), comma_separated(comparison)]
    with lock_folders({"--output_dir": folder}):
        for path, text in zip(paths, texts, strict=True):
            with writing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    for note in notes:
        print(shown(note), file=sys.stderr)
    for table in comparison:
        for reason in table.reasons:
            print(f"{table.dataset}: {reason}")
    print(f"{len(results)} records on {len(comparison)} data sets: {paths[0]}")


if __name__ == "__main__":
    command(main)()
