"""Ours beside peers in one run: one table, times and memory.

    .venv/bin/python -m benchmarks --list
    .venv/bin/python -m benchmarks lstm label-attention step --json figures.json --plot figures.png
    .venv/bin/python -m benchmarks prediction --shape rcv1 --rounds 5

Each implementation runs in a process of its own, and they take turns. Peers that are not installed become rows that say
so: `pip install -e '.[peers]'`; LibMultiLabel wants an environment of its own, named with --peers-python:
`pip install torch==2.13.0 'libmultilabel[nn]==0.10.0' 'setuptools<81'` (its metrics need an old setuptools).
"""

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.cases import TOPICS
from benchmarks.documents import SHAPES
from benchmarks.harness import report
from benchmarks.harness.runner import measure
from lsfa_jax.util import console


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="all where none is named")
    parser.add_argument("--list", action="store_true", help="say which topics there are, and stop")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="instead of each topic's own shapes")
    parser.add_argument("--rounds", type=int, default=3, help="calls of each after the first (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and documents (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, after each row")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows with a ratio that the JSON file has already"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the ratios")
    parser.add_argument(
        "--peers-python", default=sys.executable, metavar="PYTHON", help="interpreter with LibMultiLabel"
    )
    args = parser.parse_args(arguments)
    if unknown := set(args.topics) - set(TOPICS):
        parser.error(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    if args.resume and not args.json:
        parser.error("--resume needs --json FILE")
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if shutil.which(args.peers_python) is None:
        parser.error(f"--peers-python: {args.peers_python} is no interpreter")
    for file in filter(None, (args.json, args.plot)):
        # Told now, not after the measurement.
        if not os.access(file.parent, os.W_OK) or file.is_dir():
            parser.error(f"{file} cannot be written: name a file in a folder that is there")
    return args


def main(arguments: list[str]) -> None:
    """Measures what was asked for and prints the table."""
    args = parse(arguments)
    if args.list:
        console.table(
            "Topics", ["", "shapes", "what"], [[name, " ".join(t.shapes), t.about] for name, t in TOPICS.items()]
        )
        return
    wanted = [
        comparison
        for name in args.topics or TOPICS
        for shape in args.shape or TOPICS[name].shapes
        for comparison in TOPICS[name].rows(shape)
    ]
    # A shape to try things out says nothing of the aims.
    wanted = [replace(own, time=None, memory=None, most_mib=None) if own.shape == "tiny" else own for own in wanted]
    rows = report.read_rows(args.json) if args.resume and args.json.exists() else []
    # What failed is tried again.
    rows = [made for made in rows if "ratio" in made]
    written = report.document(rows, args.rounds, args.seed)
    for number, comparison in enumerate(wanted, 1):
        if any(made["key"] == comparison.key for made in rows):
            continue
        where = f"[{number}/{len(wanted)}] {comparison.key}"
        found = measure(
            comparison, args.rounds, args.seed, args.peers_python, lambda t, w=where: console.note(f"{w}: {t}")
        )
        rows.append(report.row(comparison, found))
        written = report.document(rows, args.rounds, args.seed)
        if args.json:
            report.write_json(args.json, written)
    report.print_table(written)
    if args.plot:
        report.write_plot(args.plot, rows)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except console.UserError as error:
        console.error(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        console.error("interrupted; with --json FILE, --resume goes on after the rows that are there")
        sys.exit(130)
