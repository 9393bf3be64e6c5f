"""Times and memory of lsfa_jax and of its peers, measured in one run and printed as one table.

    .venv/bin/python -m benchmarks --list
    .venv/bin/python -m benchmarks lstm label-attention step --json table.json --plot table.png
    .venv/bin/python -m benchmarks prediction --shape rcv1 --rounds 5

Each implementation runs in a separate process, and the processes alternate. A peer that is not installed becomes a row
that says so: `pip install -e '.[peers]'`. LibMultiLabel needs a separate environment, named with --peers-python:
`pip install torch==2.13.0 'libmultilabel[nn]==0.10.0' 'setuptools<81'` (its metrics need an old setuptools).
"""

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.cases import SHAPES, TOPICS, Comparison
from benchmarks.harness import report
from benchmarks.harness.runner import measure
from lsfa_jax.util import console


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="default: all topics")
    parser.add_argument("--list", action="store_true", help="list the topics and exit")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="instead of the shapes of each topic")
    parser.add_argument("--rounds", type=int, default=3, help="calls of each after the first (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and documents (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements, after each row")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the JSON file that have a ratio")
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
        parser.error(f"--peers-python: {args.peers_python} is not an interpreter")
    for file in filter(None, (args.json, args.plot)):
        # Checked before the measurement, not after.
        if not os.access(file.parent, os.W_OK) or file.is_dir():
            parser.error(f"{file} cannot be written: name a file in an existing, writable folder")
    return args


def selected(topics: list[str], shapes: list[str] | None) -> list[Comparison]:
    """Returns the comparisons of topics (all where empty), at their default shapes where none is named."""
    comparisons = [
        comparison
        for name in topics or TOPICS
        for shape in shapes or TOPICS[name].shapes
        for comparison in TOPICS[name].comparisons(shape)
    ]
    # The targets are for real shapes.
    return [
        replace(each, time_target=None, memory_target=None, max_mib=None) if each.shape == "tiny" else each
        for each in comparisons
    ]


def main(arguments: list[str]) -> None:
    """Measures the selected comparisons and prints the table."""
    args = parse(arguments)
    if args.list:
        topics = [[name, " ".join(topic.shapes), topic.about] for name, topic in TOPICS.items()]
        console.table("Topics", ["", "shapes", "what"], topics)
        return
    rows = report.read_rows(args.json) if args.resume and args.json.exists() else []
    # Rows that failed are measured again.
    rows = [row for row in rows if "ratio" in row]
    comparisons = selected(args.topics, args.shape)
    for number, comparison in enumerate(comparisons, 1):
        if any(row["key"] == comparison.key for row in rows):
            continue
        prefix = f"[{number}/{len(comparisons)}] {comparison.key}"

        def note(text: str, prefix: str = prefix) -> None:
            console.note(f"{prefix}: {text}")

        measured = measure(comparison, args.rounds, args.seed, args.peers_python, note)
        rows.append(report.row(comparison, measured))
        if args.json:
            report.write_json(args.json, report.document(rows, args.rounds, args.seed))
    report.print_table(report.document(rows, args.rounds, args.seed))
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
