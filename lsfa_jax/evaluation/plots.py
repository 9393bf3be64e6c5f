"""The label-frequency curve, drawn with characters and as a picture: how many documents each label has, by rank."""

from pathlib import Path

import numpy as np

from lsfa_jax.util.console import UserError

# Points of the curve, enough for any number of labels.
_POINTS = 400
# Characters of a line, and lines.
_WIDTH, _HEIGHT = 100, 24


def curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ranks from 1, int64[points], and the documents of the label at each, the most frequent first.

    Args:
        counts: int[L], documents of each label, L at least 1; a label without documents counts as half a document, so
            that it has a place on a logarithmic axis.
    """
    ranked = np.sort(counts)[::-1]
    ranks = np.unique(np.geomspace(1, len(ranked), _POINTS).round().astype(np.int64))
    return ranks, np.maximum(ranked[ranks - 1], 0.5)


def in_characters(counts: np.ndarray, head_threshold: int, title: str) -> str:
    """Draws the curve, both axes logarithmic, as lines of text without colours; N_t is a dashed line."""
    import plotext

    ranks, documents = curve(counts)
    threshold = max(head_threshold, 0.5)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limitsize(False, False)
    plotext.plotsize(_WIDTH, _HEIGHT)
    plotext.title(title)
    plotext.xscale("log")
    plotext.yscale("log")
    plotext.plot(ranks.tolist(), documents.tolist(), marker="dot")
    plotext.plot([1, max(len(counts), 2)], [threshold] * 2, marker="-")
    powers = [10**i for i in range(len(str(len(counts))))]
    plotext.xticks(powers, [f"{rank:,}" for rank in powers])
    ends = [float(documents[0]), float(documents[-1])]
    plotext.yticks([*ends, threshold], [*(f"{x:,g}" for x in ends), f"N_t {head_threshold:,}"])
    plotext.xlabel("documents of each label in training, over its rank")
    return "\n".join(line.rstrip() for line in str(plotext.uncolorize(plotext.build())).splitlines())


def as_picture(counts: np.ndarray, head_threshold: int, title: str, path: Path) -> None:
    """Writes the curve as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranks, documents = curve(counts)
    num_head = int((counts >= head_threshold).sum())
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", title=title)
    axes.plot(ranks, documents, color="#1f4e79", linewidth=2)
    axes.fill_between(ranks, documents, 0.5, where=documents < head_threshold, color="#1f4e79", alpha=0.12)
    axes.axhline(max(head_threshold, 0.5), color="#b5471b", linestyle="--", linewidth=1)
    # The annotation is at the left end, on the side of the line that the curve is not on.
    below = documents[0] >= head_threshold
    axes.annotate(
        f"N_t = {head_threshold:,}: {num_head:,} head and {len(counts) - num_head:,} tail labels",
        (1, max(head_threshold, 0.5)),
        xytext=(0, -4 if below else 4),
        textcoords="offset points",
        va="top" if below else "bottom",
        color="#b5471b",
    )
    axes.set(xlabel="rank of the label", ylabel="training documents", ylim=(0.5, None))
    axes.grid(which="major", alpha=0.25)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise UserError(f"--png {path}: cannot be written ({error.strerror}); name another file") from None
