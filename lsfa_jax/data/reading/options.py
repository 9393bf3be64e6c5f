"""What users specify about their files."""

from dataclasses import dataclass
from typing import Any, Literal

from lsfa_jax.config import Data
from lsfa_jax.util.console import UserError

FORMATS = (
    *("jsonl", "json", "csv", "tsv", "libmultilabel", "fasttext", "pair", "lyrl2004", "eurlex57k", "annif", "parquet"),
    "txt",
)

SETTINGS = (
    *("format", "encoding", "columns", "header", "text_field", "labels_field", "label_columns", "label_separator"),
    "label_names",
)
"""The settings of a corpus, by name, that say how its files are read."""


@dataclass(frozen=True)
class ReadOptions:
    """What users specify about their files; "" is detected.

    Attributes:
        format: 'auto' or one of `FORMATS`.
        encoding: 'auto' or the name of a character encoding.
        columns: names of the columns of a table without a header, separated by commas; '-' is a column of no use.
        header: whether the first row of a table has the columns' names.
        text_field: the name of the field or column with the text; several, separated by commas, are joined.
        labels_field: that with the labels; several, or a pattern.
        id_field: that with the document's id.
        label_columns: columns of 0 and 1 that are a label each: 'first..last', a pattern, or names.
        label_separator: what is between labels that share one string; a space stands for any white space.
        label_names: file with the names of labels that are numbers or other ids.
        bad_rows: whether a row that cannot be used stops the reading or is left out and counted.
        labelled: False reads no labels and accepts files without any, such as one text a line.
        prefix: of the options on the command line, for messages.
        usual_text_field: text field of a run, which is used where a file has it.
    """

    format: str = "auto"
    encoding: str = "auto"
    columns: str = ""
    header: Literal["auto", "yes", "no"] = "auto"
    text_field: str = ""
    labels_field: str = ""
    id_field: str = ""
    label_columns: str = ""
    label_separator: str = ""
    label_names: str = ""
    bad_rows: Literal["stop", "skip"] = "stop"
    labelled: bool = True
    prefix: str = "--data."
    usual_text_field: str = ""

    @classmethod
    def from_settings(cls, data: Data, **overrides: Any) -> "ReadOptions":
        """Makes the options of a command or a run.

        Args:
            data: the settings of the corpus.
            overrides: attributes from the command line; one that is "" leaves the setting as it is.

        Raises:
            UserError: no such format.
        """
        settings = {name: getattr(data, name) for name in (*SETTINGS, "bad_rows")}
        return cls(**(settings | {name: value for name, value in overrides.items() if value != ""}))

    def __post_init__(self) -> None:
        # As shells pass what cannot be typed.
        typed = {"\\t": "\t", "\\n": "\n"}.get(self.label_separator, self.label_separator)
        object.__setattr__(self, "label_separator", typed)
        if self.format not in ("auto", *FORMATS):
            raise UserError(f"{self.prefix}format {self.format}: expected auto, {', '.join(FORMATS)}")
        if self.encoding != "auto":
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError):
                raise UserError(
                    f"{self.prefix}encoding {self.encoding}: expected auto, or an encoding such as cp1252, utf-16, "
                    "gb18030, shift_jis or koi8-r"
                ) from None

    def option(self, name: str) -> str:
        """Returns an option as it is typed: "text_field" -> "--data.text-field"."""
        return self.prefix + name.replace("_", "-")
