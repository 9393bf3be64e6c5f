"""Rows of the table, their JSON and their plot."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import Comparison
from benchmarks.harness.runner import Measured
from lsfa_jax.util import console, cores
from lsfa_jax.util.atomic import TextFiles

Row = dict[str, Any]
"""A row of the JSON file."""

HEADER = ["", "ours ms", "peer ms", "time ratio", "range", "target", "met", "compile s",
          "ours MiB", "peer MiB", "memory ratio", "target", "met"]  # fmt: skip


def row(comparison: Comparison, measured: Mapping[str, Measured]) -> Row:
    """Returns a row. The fastest peer and, separately, the smallest peer count; failed implementations are notes."""
    ours = measured["ours"]
    peers = [measured[name] for name in comparison.peers if name in measured and measured[name].seconds]
    fastest = min(peers, key=lambda peer: peer.median, default=None)
    result: Row = {
        "key": comparison.key,
        "topic": comparison.topic,
        "shape": comparison.shape,
        "what": comparison.what,
        "time_target": comparison.time_target,
        "memory_target": comparison.memory_target,
        "memory_of": comparison.memory_fact or "process",
        "notes": _notes(comparison, measured, fastest),
        "measured": {each.name: vars(each) for each in measured.values()},
    }
    if ours.seconds:
        result |= {"ours_ms": ours.median * 1e3, "compile_s": ours.compile_seconds, "ours_mib": _mib(comparison, ours)}
        if comparison.max_mib:
            result |= {"most_mib": comparison.max_mib, "most_met": result["ours_mib"] <= comparison.max_mib}
    if fastest:
        smallest = min(_mib(comparison, peer) for peer in peers)
        result |= {"peer": fastest.name, "peer_ms": fastest.median * 1e3, "peer_mib": smallest}
    if ours.seconds and fastest:
        result |= _ratios(comparison, ours, fastest, result)
    return result


def _notes(comparison: Comparison, measured: Mapping[str, Measured], fastest: Measured | None) -> list[str]:
    notes = [f"{each.name}: {each.error}" for each in measured.values() if each.error]
    if any(each.disturbed for each in measured.values()):
        notes.append("other processes used the processors in every round: measure again")
    ours = measured["ours"]
    for name, each in measured.items():
        if ours.seconds and name != "ours" and each.seconds and each is not fastest:
            cost = f"{each.median * 1e3:,.4g} ms and {_mib(comparison, each):,.0f} MiB"
            notes.append(f"beside {name}, {cost}, the ratio is {ours.median / each.median:.2f}")
    return notes


def _ratios(comparison: Comparison, ours: Measured, peer: Measured, sizes: Row) -> Row:
    ratios = [numerator / denominator for numerator, denominator in zip(ours.seconds, peer.seconds, strict=False)]
    result: Row = {
        "ratio": ours.median / peer.median,
        "range": [min(ratios), max(ratios)],
        "memory_ratio": sizes["ours_mib"] / sizes["peer_mib"] if sizes["peer_mib"] else None,
    }
    if comparison.time_target is not None:
        result["time_met"] = result["ratio"] <= comparison.time_target
    if comparison.memory_target is not None and result["memory_ratio"] is not None:
        result["memory_met"] = result["memory_ratio"] <= comparison.memory_target
    return result


def _mib(comparison: Comparison, measured: Measured) -> float:
    if comparison.memory_fact:
        return float(measured.facts.get(comparison.memory_fact, 0.0))
    # With an accelerator, its memory is the scarce one.
    return measured.device_mib or measured.peak_mib


def _cells(row: Row) -> list[str]:
    """Formats a row for the table."""

    def number(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else ""

    def yes_no(name: str) -> str:
        return "" if row.get(name) is None else "yes" if row[name] else "no"

    peer = f" ({row['peer']})" if "peer" in row else ""
    memory = [number("memory_target", ".3g"), yes_no("memory_met")]
    if "most_mib" in row:
        memory = [f"{row['most_mib']:,.0f} MiB", yes_no("most_met")]
    return [
        row["key"] + peer,
        number("ours_ms", ",.4g" if row.get("ours_ms", 0) < 100 else ",.0f"),
        number("peer_ms", ",.4g" if row.get("peer_ms", 0) < 100 else ",.0f"),
        number("ratio", ".2f"),
        f"{row['range'][0]:.2f}-{row['range'][1]:.2f}" if "range" in row else "",
        number("time_target", ".2f"),
        yes_no("time_met"),
        number("compile_s", ".1f"),
        number("ours_mib", ",.0f"),
        number("peer_mib", ",.0f"),
        number("memory_ratio", ".2f"),
        *memory,
    ]


def _machine() -> dict[str, str | int | None]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    return {
        "processor": model,
        "cores": cores.available(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def document(rows: list[Row], rounds: int, seed: int) -> dict[str, Any]:
    """Returns the content of the JSON file."""
    versions: dict[str, str] = {}
    for row in rows:
        for measured in row["measured"].values():
            versions |= measured["versions"]
    return {"machine": _machine(), "versions": versions, "rounds": rounds, "seed": seed, "rows": rows}


def read_rows(path: Path) -> list[Row]:
    """Reads the rows of a JSON file that `write_json` wrote.

    Raises:
        UserError: it is another file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise console.UserError(f"{path}: not a JSON file of this command ({error}); name another file") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the JSON file atomically."""
    with TextFiles() as files, files.open(path) as file:
        file.write(json.dumps(content, indent=1) + "\n")


def print_table(content: dict[str, Any]) -> None:
    """Prints the table, the notes and facts of each row, and the machine."""
    rows = content["rows"]
    console.table("Ours beside peers: times are medians, a ratio is ours / peer", HEADER, [_cells(x) for x in rows])
    for row in rows:
        for text in [*row["notes"], *_facts(row)]:
            console.note(f"{row['key']}: {text}")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(content["versions"].items()))
    machine = content["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    console.note(f"{where}; {versions}; {content['rounds']} rounds, seed {content['seed']}")


def _facts(row: Row) -> list[str]:
    lines = []
    for name, measured in row["measured"].items():
        if facts := measured["facts"]:
            values = (f"{fact} {x:,.4g}" if isinstance(x, float) else f"{fact} {x}" for fact, x in facts.items())
            lines.append(f"{name}: {', '.join(values)}")
    return lines


def write_plot(path: Path, rows: list[Row]) -> None:
    """Draws a PNG: a bar for the ratio of each row, a line for its range, a mark for its target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    rows = [row for row in rows if "ratio" in row]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.35 * max(1, len(rows))))
    colors = {True: "tab:green", False: "tab:red", None: "tab:grey"}
    for y, row in enumerate(rows):
        axes.barh(y, row["ratio"] - 1, left=1, color=colors[row.get("time_met")], height=0.6)
        axes.plot(row["range"], [y, y], color="black", linewidth=1)
        if row["time_target"] is not None:
            axes.plot([row["time_target"]] * 2, [y - 0.4, y + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(rows)), [f"{row['key']} ({row['peer']})" for row in rows])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.axvline(1, color="grey", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_xlabel("time, ours / peer; line: range over rounds; mark: target")
    figure.savefig(path, dpi=120, bbox_inches="tight", format="png")
    pyplot.close(figure)
