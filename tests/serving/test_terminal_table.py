import io

from lsfa_jax.evaluation.prediction_files import Predicted
from lsfa_jax.serving.terminal_table import table_writer

# Labels with separators, quotes, line ends, tabs, wide characters, a formula, markup of rich and HTML, directions.
ODD = ["a,b", 'say "x"', "two\nlines", "\ttab", "日本語", "=1+1", "[bold]", "<script>", "", " ", "\r", "é\u202e"]


def table(*documents):
    stream = io.StringIO(newline="")
    write = table_writer(stream)
    for document in documents:
        write(document)
    return stream.getvalue()


def test_the_start_of_the_text_is_beside_the_labels():
    text = " ".join(f"word{i:02d}" for i in range(40))
    shown = table(Predicted(7, ["first", "second"], [0.987, 0.012], text), Predicted("x", [], []))
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0].split() == ["document", "text", "label", "prob."]
    assert set(lines[1]) == {"─"}
    assert lines[2].split() == ["7", *(f"word{i:02d}" for i in range(8)), "first", "0.99"]
    assert lines[3].split()[:8] == [f"word{i:02d}" for i in range(8, 16)]
    assert lines[3].split()[-2:] == ["second", "0.01"]
    assert "…" in lines[3]
    assert lines[4].split() == ["x", "(none)"]


def test_no_control_character_passes():
    text = "\x1b[31mred \x07\x9b2J\ud800\u202eright to left 日本語のとても長い文章" * 3
    shown = table(Predicted("id " * 9, ODD, [0.5] * len(ODD), text))
    shown.encode()
    assert not [c for c in shown if (c < " " and c != "\n") or c in "\x7f\x9b\u202e"]
    assert r"\x1b[31mred \x07" in " ".join(shown.split())
    for label in ("a,b", 'say "x"', "two lines", "日本語", "[bold]", "<script>"):
        assert label in shown
    assert shown.count("0.50") == len(ODD)
