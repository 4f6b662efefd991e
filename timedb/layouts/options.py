"""The options of a file: how it is written and what its columns are, as one table that every door reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["AMBIGUOUS", "DUPLICATES", "FILE_OPTIONS", "KINDS", "RUN_OPTIONS", "FileOption", "Group"]

Group = Literal["form", "columns", "times", "series", "rows", "run"]
Kind = Literal["text", "texts", "word", "flag", "count", "length"]

KINDS = ("csv", "parquet", "arrow", "ndjson", "json", "xlsx")
"""The formats of a file."""
AMBIGUOUS = ("infer", "earlier", "later", "error")
"""What a local time may mean that comes twice."""
DUPLICATES = ("error", "drop")
"""What is done about a row that comes twice."""


@dataclass(frozen=True, slots=True)
class FileOption:
    """One option.

    Attributes:
        name: The parameter; the command line writes it with dashes, and ``texts`` there may be repeated.
        kind: What a value is.
        help: What it means; a ``[default]`` at its end.
        example: A value that works; the text of the command line.
        group: What it is about.
        metavar: What help calls its value.
        words: The values there are, of a word.
        over_rest: Whether a REST body may have it: what is about the file itself has no meaning there.
    """

    name: str
    kind: Kind
    help: str
    example: str
    group: Group
    metavar: str | None = None
    words: tuple[str, ...] = ()
    over_rest: bool = True

    @property
    def default(self) -> Any:
        """What holds where it is not said."""
        return {"texts": (), "flag": False, "count": 0}.get(self.kind, self.words[0] if self._has_default else None)

    @property
    def _has_default(self) -> bool:
        return self.kind == "word" and self.name != "format"


_FORM = (
    FileOption(
        "format",
        "word",
        "What the file is. [by its first bytes and its suffix, else csv]",
        "csv",
        "form",
        words=KINDS,
        over_rest=False,
    ),
    FileOption(
        "sheet", "text", "Of XLSX: the sheet; of JSON: the key of the table. [the only one]", "Prices", "form", "NAME"
    ),
    FileOption(
        "delimiter",
        "text",
        "Of CSV: what stands between cells; tab is the tab. [found out, else ,]",
        ";",
        "form",
        "CHARACTER",
    ),
    FileOption("decimal", "text", "What stands before decimals: . or , [.]", ",", "form", "CHARACTER"),
    FileOption("thousands", "text", "What stands between groups of three digits.", ",", "form", "CHARACTER"),
    FileOption("encoding", "text", "Of CSV: say latin-1. [utf-8, or by its first bytes]", "latin-1", "form", "NAME"),
    FileOption("skip_lines", "count", "Lines before the line of names that are left out.", "4", "form", "N"),
    FileOption("no_header", "flag", "There is no line of names; columns are called 1, 2, ….", "true", "form"),
    FileOption("null", "texts", "Stands for no value, say n/e; may be repeated.", "n/e", "form", "TEXT"),
)
_COLUMNS = (
    FileOption(
        "valid_time",
        "text",
        "Several columns are joined by a space, say DAY,HOUR. [valid_time]",
        "Zeit",
        "columns",
        "COLUMN[,COLUMN]",
    ),
    FileOption(
        "valid_time_end",
        "text",
        "The column of --valid-time once more: its cells are START - END. [valid_time_end]",
        "Ende",
        "columns",
        "COLUMN[,COLUMN]",
    ),
    FileOption("value", "text", "[value]", "Wert", "columns", "COLUMN"),
    FileOption(
        "known_time",
        "text",
        "When the values became known. [known_time, else now]",
        "issued",
        "columns",
        "COLUMN|TIME",
    ),
    FileOption(
        "run_start_time",
        "text",
        "When the run began: a time, or a column that says the same in all rows. [now]",
        "2025-01-01T00:00Z",
        "columns",
        "COLUMN|TIME",
    ),
)
_TIMES = (
    FileOption(
        "time_format",
        "text",
        "How times are written, say %d.%m.%Y %H:%M, or unix-s, unix-ms, unix-us, excel. [ISO 8601]",
        "%d.%m.%Y %H:%M",
        "times",
        "FORMAT",
    ),
    FileOption(
        "time_zone",
        "text",
        "Of times and dates without an offset, in the file and here, say Europe/Stockholm.",
        "Europe/Berlin",
        "times",
        "ZONE",
    ),
    FileOption(
        "ambiguous",
        "word",
        "What a local time means that comes twice, as clocks go back. [infer, from the order of rows]",
        "earlier",
        "times",
        words=AMBIGUOUS,
    ),
    FileOption(
        "repeated_hour",
        "text",
        "Says Y or N of local times that come twice: Y is the second time. [CET, EST, … beside the time]",
        "DSTFlag",
        "times",
        "COLUMN",
    ),
    FileOption("period", "length", "Values are of intervals so long, which begin at valid_time.", "1h", "times"),
    FileOption(
        "hour_ending", "flag", "Values are of intervals of --period [1h] that end at valid_time.", "true", "times"
    ),
    FileOption(
        "period_number",
        "text",
        "valid_time is a day, and this column counts its intervals of --period from 1.",
        "settlementPeriod",
        "times",
        "COLUMN",
    ),
    FileOption(
        "known_after",
        "length",
        "Values became known so long after their interval's end, or their valid_time.",
        "15min",
        "times",
    ),
    FileOption(
        "known_time_from_name",
        "text",
        "When the values became known, by the file's name: year, month, day, hour, … in the groups of a pattern.",
        r"(\d{8})_(\d{4})",
        "times",
        "REGEX",
        over_rest=False,
    ),
)
_SERIES = (
    FileOption("series", "text", "One series for all rows.", "wind", "series", "NAME"),
    FileOption("series_column", "text", "The series' names. [series_key, series_id]", "zone", "series", "COLUMN"),
    FileOption("wide", "flag", "A series for each other column, by its name.", "true", "series"),
    FileOption(
        "wide_columns", "text", "A series for each of these columns, by its name.", "NORTH,SOUTH", "series", "A,B"
    ),
    FileOption(
        "label",
        "texts",
        "A label of the series, from that column; may be repeated. [labels]",
        "site=Station",
        "series",
        "KEY=COLUMN",
    ),
    FileOption(
        "label_value",
        "texts",
        "A label of the series, for all rows; may be repeated. [labels]",
        "model=m1",
        "series",
        "KEY=TEXT",
    ),
    FileOption("quantile", "text", "The label quantile, from a column of numbers in (0, 1).", "q", "series", "COLUMN"),
)
_ROWS = (
    FileOption(
        "duplicates",
        "word",
        "What is done about the same row twice; rows that contradict each other are an error. [error]",
        "drop",
        "rows",
        words=DUPLICATES,
    ),
    FileOption("ignore", "texts", "A column that is left out; may be repeated.", "remark", "rows", "COLUMN"),
    FileOption("ignore_others", "flag", "Leave out every column that nothing takes.", "true", "rows"),
)
FILE_OPTIONS: tuple[FileOption, ...] = (*_FORM, *_COLUMNS, *_TIMES, *_SERIES, *_ROWS)
"""Every option, in the order of help."""
RUN_OPTIONS: tuple[FileOption, ...] = (
    FileOption(
        "run_id",
        "text",
        "Names the run, and may hold {file}, the file's name; repeating it is a safe retry. [a digest of the run]",
        "{file}",
        "run",
    ),
    FileOption(
        "run_params",
        "text",
        "Anything that is to be known of the run, a JSON object.",
        '{"model": "v2"}',
        "run",
        "JSON",
    ),
    FileOption("workflow_id", "text", "What made the run.", "day-ahead", "run"),
    FileOption("unit", "text", "Of all values; converted to the unit of their series.", "MW", "run"),
    FileOption(
        "skip_unchanged",
        "flag",
        "Leave out rows that repeat the one known before; late runs and corrections find them as never sent.",
        "true",
        "run",
    ),
)
"""What is said of the run beside its rows; a recipe keeps it, too."""
