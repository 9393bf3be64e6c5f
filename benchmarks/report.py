"""Rows of the table, their JSON and their plot."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.comparisons import Comparison
from benchmarks.turns import Measured
from lsfa_jax.util import console
from lsfa_jax.util.atomic import TextFiles

HEADER = ["", "ours ms", "peer ms", "time ratio", "range", "target", "met", "compile s",
          "ours MiB", "peer MiB", "memory ratio", "target", "met"]  # fmt: skip


def row(comparison: Comparison, found: dict[str, Measured]) -> dict[str, Any]:
    """Makes a row, with numbers where there are any; the least time and the least memory of the peers count."""
    ours = found["ours"]
    peers = [found[name] for name in comparison.peers if name in found]
    notes = [f"{each.name}: {each.error}" for each in found.values() if each.error]
    if any(each.disturbed for each in found.values()):
        notes.append("somebody else used the processors in all rounds: figures to be measured again")
    peer = min((each for each in peers if each.seconds), key=lambda each: each.median, default=None)
    if ours.seconds:
        for each in peers:
            if each.seconds and each is not peer:
                its = f"{each.median * 1e3:,.4g} ms and {_mib(comparison, each):,.0f} MiB"
                notes.append(f"beside {each.name}, {its}, the ratio is {ours.median / each.median:.2f}")
    made: dict[str, Any] = {
        "key": comparison.key,
        "topic": comparison.topic,
        "shape": comparison.shape,
        "what": comparison.what,
        "time_target": comparison.time,
        "memory_target": comparison.memory,
        "memory_of": comparison.memory_fact or "process",
        "notes": notes,
        "measured": {each.name: vars(each) for each in found.values()},
    }
    if ours.seconds:
        made |= {"ours_ms": ours.median * 1e3, "compile_s": ours.compile_seconds, "ours_mib": _mib(comparison, ours)}
    if comparison.most_mib and "ours_mib" in made:
        made |= {"most_mib": comparison.most_mib, "most_met": made["ours_mib"] <= comparison.most_mib}
    if peer:
        least = min(_mib(comparison, each) for each in peers if each.seconds)
        made |= {"peer": peer.name, "peer_ms": peer.median * 1e3, "peer_mib": least}
    if ours.seconds and peer:
        ratios = [mine / other for mine, other in zip(ours.seconds, peer.seconds, strict=False)]
        made |= {"ratio": ours.median / peer.median, "range": [min(ratios), max(ratios)]}
        made["memory_ratio"] = made["ours_mib"] / made["peer_mib"] if made["peer_mib"] else None
        if comparison.time is not None:
            made["time_met"] = made["ratio"] <= comparison.time
        if comparison.memory is not None and made["memory_ratio"] is not None:
            made["memory_met"] = made["memory_ratio"] <= comparison.memory
    return made


def _mib(comparison: Comparison, measured: Measured) -> float:
    if comparison.memory_fact:
        return float(measured.facts.get(comparison.memory_fact, 0.0))
    # Where there is a device, that is where the memory is short.
    return measured.device_mib or measured.peak_mib


def cells(made: dict[str, Any]) -> list[str]:
    """Formats a row for the table."""

    def number(name: str, form: str) -> str:
        return format(made[name], form) if made.get(name) is not None else ""

    def said(name: str) -> str:
        return {True: "yes", False: "no"}.get(made.get(name), "")  # type: ignore[call-overload]

    low_high = made.get("range")
    peer = f" ({made['peer']})" if "peer" in made else ""
    memory = [number("memory_target", ".3g"), said("memory_met")]
    if "most_mib" in made:
        memory = [f"{made['most_mib']:,.0f} MiB", said("most_met")]
    return [
        made["key"] + peer,
        number("ours_ms", ",.4g" if made.get("ours_ms", 0) < 100 else ",.0f"),
        number("peer_ms", ",.4g" if made.get("peer_ms", 0) < 100 else ",.0f"),
        number("ratio", ".2f"),
        f"{low_high[0]:.2f}-{low_high[1]:.2f}" if low_high else "",
        number("time_target", ".2f"),
        said("time_met"),
        number("compile_s", ".1f"),
        number("ours_mib", ",.0f"),
        number("peer_mib", ",.0f"),
        number("memory_ratio", ".2f"),
        *memory,
    ]


def machine() -> dict[str, Any]:
    """Names the machine."""
    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        model = next((x.split(":")[1].strip() for x in about.read_text().splitlines() if "model name" in x), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": cores, "system": platform.platform(), "python": platform.python_version()}


def document(rows: list[dict[str, Any]], rounds: int, seed: int) -> dict[str, Any]:
    """Returns what the JSON file holds."""
    versions: dict[str, str] = {}
    for made in rows:
        for measured in made["measured"].values():
            versions |= measured["versions"]
    return {"machine": machine(), "versions": versions, "rounds": rounds, "seed": seed, "rows": rows}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a JSON file that `write_json` wrote; raises UserError where it is another file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise console.UserError(f"{path}: not figures of this command ({error}); name another file") from None


def write_json(path: Path, written: dict[str, Any]) -> None:
    """Writes the figures; whoever reads the file while it is written sees the old ones."""
    with TextFiles() as files, files.open(path) as file:
        file.write(json.dumps(written, indent=1) + "\n")


def print_table(written: dict[str, Any]) -> None:
    """Prints the table and what it was measured on."""
    rows = written["rows"]
    console.table("Ours beside peers: times are medians, a ratio is ours / peer", HEADER, [cells(x) for x in rows])
    for made in rows:
        for text in [*made["notes"], *(f"{n}: {t}" for n, t in _remarks(made))]:
            console.note(f"{made['key']}: {text}")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(written["versions"].items()))
    about = written["machine"]
    where = f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}"
    console.note(f"{where}; {versions}; {written['rounds']} rounds, seed {written['seed']}")


def _remarks(made: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, ", ".join(f"{fact} {value:,.4g}" if isinstance(value, float) else f"{fact} {value}"
                         for fact, value in measured["facts"].items()))
        for name, measured in made["measured"].items()
        if measured["facts"]
    ]  # fmt: skip


def write_plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws the ratio of each row as a bar, its range as a line, its target as a mark; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    drawn = [made for made in rows if "ratio" in made]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.35 * max(1, len(drawn))))
    for place, made in enumerate(drawn):
        met = made.get("time_met")
        axes.barh(
            place,
            made["ratio"] - 1,
            left=1,
            color={True: "tab:green", False: "tab:red", None: "tab:grey"}[met],
            height=0.6,
        )
        axes.plot(made["range"], [place, place], color="black", linewidth=1)
        if made["time_target"] is not None:
            axes.plot([made["time_target"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(drawn)), [f"{made['key']} ({made['peer']})" for made in drawn])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.axvline(1, color="grey", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_xlabel("time, ours / peer; line: range over rounds; mark: target")
    figure.savefig(path, dpi=120, bbox_inches="tight", format="png")
    pyplot.close(figure)
