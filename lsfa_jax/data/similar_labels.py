"""Label names that are probably one label: those that differ by case or white space only."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping

_EXAMPLES = 3


def alike(counts: Mapping[str, int]) -> list[str]:
    """Returns a warning about labels that differ by case or white space only, or nothing.

    Args:
        counts: documents of each label.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in counts:
        groups["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    pairs = [names for names in groups.values() if len(names) > 1]
    if not pairs:
        return []
    pairs.sort(key=lambda names: -sum(counts[name] for name in names))
    shown = "; ".join(" and ".join(f"{name!r} {counts[name]:,}" for name in names) for names in pairs[:_EXAMPLES])
    more = f"; and {len(pairs) - _EXAMPLES:,} more" if len(pairs) > _EXAMPLES else ""
    return [f"labels that differ by case or white space only are different labels: {shown}{more}"]
