"""Times as files write them, by a format or as numbers since an epoch, for whole columns of texts.

A stamp is integer microseconds since 1970: of an instant, or of what a local clock shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import MAX_MICROS, MIN_MICROS
from timedb.contract.wire import quoted

__all__ = ["ISO", "SERIALS", "Micros", "Stamps", "TimeFault", "check_format", "format_hint", "parse_stamps"]

Micros = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

SERIALS = {"unix-s": 1_000_000, "unix-ms": 1_000, "unix-us": 1, "excel": 86_400_000_000}
"""Times that are numbers → microseconds of a unit."""
ISO = "iso"
_DAY = 86_400_000_000
_EXCEL_EPOCH_DAYS = -25_569  # 1899-12-30
_FIRST_EXCEL_DAY = 61  # before it Excel counts a day, 1900-02-29, that there never was
_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"]
_MONTHS += ["december"]
_ISO_PATTERN = (
    r"^(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)(?:[Tt ](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d+))?)?)?"
    r"\s?(?P<z>[Zz]|[+-]\d\d:?\d\d)?$"
)
_PARTS = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{1,2}",
    "d": r"\d{1,2}",
    "e": r"\d{1,2}",
    "H": r"\d{1,2}",
    "I": r"\d{1,2}",
    "M": r"\d{1,2}",
    "S": r"\d{1,2}",
    "f": r"\d{1,6}",
    "j": r"\d{1,3}",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]+",
    "p": r"[AaPp]\.?[Mm]\.?",
    "z": r"[Zz]|[+-]\d\d:?\d\d",
}
_WHOLE = {"T": "%H:%M:%S", "F": "%Y-%m-%d", "R": "%H:%M"}
_FIXED = {"m": 2, "d": 2, "e": 2, "H": 2, "I": 2, "M": 2, "S": 2, "j": 3}


class TimeFault(ValueError):
    """A text that is no time.

    Attributes:
        index: Its row.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


@dataclass(frozen=True, slots=True)
class Stamps:
    """A column of times.

    Attributes:
        micros: Of each row; nothing where it is null.
        local: Which are readings of a local clock; the others are instants.
        null: Which are no time at all.
        dates: Which are days without a time of day.
    """

    micros: Micros
    local: Mask
    null: Mask
    dates: Mask


def check_format(text: str, option: str) -> None:
    """Refuse a time format that is none.

    Raises:
        InvalidRequest: says what is missing or unknown.
    """
    if text not in SERIALS:
        try:
            _pattern_of(text)
        except ValueError as error:
            raise InvalidRequest(
                f"{option}: {quoted(text)} {error}; formats are such as '%d.%m.%Y %H:%M', or {', '.join(SERIALS)}"
            ) from None


@lru_cache(maxsize=64)
def _pattern_of(text: str) -> str:
    for name, whole in _WHOLE.items():
        text = text.replace(f"%{name}", whole)
    pieces = re.findall(r"%-?(.)|(.)", text, re.DOTALL)
    found, seen = [], []
    for number, (part, literal) in enumerate(pieces):
        if not part or part == "%":
            found.append(re.sub(r"([^\w\s%])", r"\\\1", literal or "%"))
            continue
        if part not in _PARTS:
            raise ValueError(f"has %{part}, which is none of {' '.join('%' + each for each in _PARTS)}")
        part_name = {"e": "d", "b": "B"}.get(part, part)
        if part_name in seen:
            raise ValueError(f"has %{part} twice")
        seen.append(part_name)
        beside = pieces[max(number - 1, 0) : number] + pieces[number + 1 : number + 2]
        fixed = part in _FIXED and any(each in _PARTS and each not in "bBpz" for each, _ in beside if each)
        digits = rf"\d{{{_FIXED[part]}}}" if fixed else _PARTS[part]
        found.append(f"(?P<{part_name}>{digits})")
    said = set(seen)
    if not ({"Y", "y"} & said and (({"m", "B"} & said and "d" in said) or "j" in said)):
        raise ValueError("does not say year, month and day (%Y %m %d)")
    if "I" in said and "p" not in said:
        raise ValueError("has %I without %p")
    return f"^{''.join(found)}$"


def parse_stamps(texts: pa.Array, time_format: str) -> Stamps:
    """Texts as times.

    Args:
        texts: Strings; null is no time.
        time_format: ``iso``, one of :data:`SERIALS`, or a format of ``%Y``, ``%m`` and so on. Hour 24 is the next
            day's midnight.

    Raises:
        TimeFault: a text is none of that format, or no existing date and time.
    """
    texts = pc.utf8_trim_whitespace(texts)
    if time_format in SERIALS:
        return _of_serials(texts, time_format)
    pattern = _ISO_PATTERN if time_format == ISO else _pattern_of(time_format)
    found = pc.extract_regex(texts, pattern)
    null = texts.is_null().to_numpy(zero_copy_only=False)
    wrong = found.is_null().to_numpy(zero_copy_only=False) & ~null
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        told = "is not an RFC 3339 time such as 2025-01-01T00:00:00Z"
        raise TimeFault(index, told if time_format == ISO else f"is not of the form {time_format}")
    parts = {field.name: found.field(position) for position, field in enumerate(found.type)}
    return _of_parts(parts, null, bare=time_format == ISO)


def _of_parts(parts: dict[str, pa.Array], null: Mask, *, bare: bool) -> Stamps:
    count = len(null)

    def number(name: str, default: int) -> Micros:
        if name not in parts:
            return np.full(count, default, dtype=np.int64)
        texts = pc.if_else(pc.equal(parts[name], ""), str(default), parts[name])
        return _numbers(pc.fill_null(texts.cast(pa.int64()), default))

    year = number("Y", 1970)
    if "y" in parts:
        short = number("y", 70)
        year = short + np.where(short >= 69, 1900, 2000)
    days = _days(year, parts, number, null)
    hour, minute, second = _hours(parts, number), number("M", 0), number("S", 0)
    micros = _fraction(parts, count)
    midnight = (hour == 24) & (minute == 0) & (second == 0) & (micros == 0)
    _refuse(~null & (((hour > 23) & ~midnight) | (minute > 59) | (second > 59)))
    total = ((days * 24 + hour) * 60 + minute) * 60 + second
    total = total * 1_000_000 + micros
    offset = _offsets(parts["z"], null) if "z" in parts else None
    local = np.ones(count, dtype=bool) if offset is None else np.isnan(offset)
    if offset is not None:
        total = total - np.where(local, 0, offset).astype(np.int64)
    _refuse(~null & ((total < MIN_MICROS) | (total > MAX_MICROS)), "lies outside the years 1 to 9999")
    if bare:
        dates = pc.equal(parts["H"], "").to_numpy(zero_copy_only=False)
    else:
        dates = np.full(count, not {"H", "I"} & parts.keys())
    return Stamps(total, local & ~null, null, dates)


def _days(year: Micros, parts: dict[str, pa.Array], number: Callable[[str, int], Micros], null: Mask) -> Micros:
    """Days since 1970 of a year with month and day, or the day of the year."""
    if "j" in parts:
        of_year = number("j", 1)
        first = (year - 1970).astype("M8[Y]").astype("M8[D]").astype(np.int64)
        following = (year - 1969).astype("M8[Y]").astype("M8[D]").astype(np.int64)
        _refuse(~null & ((of_year < 1) | (first + of_year > following)))
        found: Micros = first + of_year - 1
        return found
    month = _named_months(parts["B"], null) if "B" in parts else number("m", 1)
    day = number("d", 1)
    _refuse(~null & ((month < 1) | (month > 12) | (year < 1)))
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    following = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    _refuse(~null & ((day < 1) | (first + day > following)))
    of_month: Micros = first + day - 1
    return of_month


def _named_months(names: pa.Array, null: Mask) -> Micros:
    low = pc.utf8_lower(names)
    whole = pc.index_in(low, pa.array(_MONTHS))
    short = pc.index_in(low, pa.array([each[:3] for each in _MONTHS]))
    found: Micros = pc.fill_null(pc.coalesce(whole, short), -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    _refuse(~null & (found < 1), "names no month in English")
    return found


def _hours(parts: dict[str, pa.Array], number: Callable[[str, int], Micros]) -> Micros:
    if "I" not in parts:
        return number("H", 0)
    twelve = number("I", 12)
    _refuse((twelve < 1) | (twelve > 12))
    late = pc.starts_with(pc.utf8_lower(parts["p"]), "p").fill_null(False).to_numpy(zero_copy_only=False)
    return twelve % 12 + np.where(late, 12, 0)


def _fraction(parts: dict[str, pa.Array], count: int) -> Micros:
    if "f" not in parts:
        return np.zeros(count, dtype=np.int64)
    texts = pc.fill_null(parts["f"], "")
    finer = pc.match_substring_regex(texts, r"^\d{6}0*[1-9]").to_numpy(zero_copy_only=False)
    _refuse(finer, "is finer than a microsecond")
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(texts, 6, "0"), 0, 6)
    return _numbers(digits.cast(pa.int64()))


def _offsets(texts: pa.Array, null: Mask) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Microseconds that each offset is ahead of UTC; NaN where there is none."""
    unique = texts.dictionary_encode()
    known = []
    for text in unique.dictionary.to_pylist():
        if not text:
            known.append(np.nan)
        elif text in "Zz":
            known.append(0.0)
        else:
            hours, minutes = int(text[1:3]), int(text[-2:])
            known.append(
                -1.0 if hours > 23 or minutes > 59 else (hours * 60 + minutes) * 60e6 * (-1 if text[0] == "-" else 1)
            )
    values = np.array([*known, np.nan])
    found: np.ndarray[Any, np.dtype[np.float64]] = values[
        pc.fill_null(unique.indices, len(known)).to_numpy(zero_copy_only=False)
    ]
    _refuse(~null & (found == -1.0))
    return found


def _of_serials(texts: pa.Array, kind: str) -> Stamps:
    null = texts.is_null().to_numpy(zero_copy_only=False)
    pattern = r"^-?\d{1,18}$" if kind == "unix-us" else r"^-?\d{1,15}(\.\d+)?$"
    right = pc.fill_null(pc.match_substring_regex(texts, pattern), True).to_numpy(zero_copy_only=False)
    _refuse(~right, f"is not a time of the kind {kind}")
    whole = pc.extract_regex(texts, r"^(?P<sign>-?)(?P<whole>\d+)\.?(?P<part>\d*)$")
    sign, digits, part = (whole.field(index) for index in range(3))  # empty texts where it is null
    units = pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()).to_numpy(zero_copy_only=False)
    most = (MAX_MICROS - MIN_MICROS) // SERIALS[kind]
    _refuse(~null & (units > most), f"lies outside the years 1 to 9999 as {kind}")
    micros = units * SERIALS[kind] + _serial_part(part, kind)
    micros = np.where(pc.equal(sign, "-").to_numpy(zero_copy_only=False), -micros, micros)
    if kind == "excel":
        _refuse(~null & (micros < _FIRST_EXCEL_DAY * _DAY), "is no day that Excel counts right (from 1900-03-01, 61)")
        micros = micros + _EXCEL_EPOCH_DAYS * _DAY
    _refuse(~null & ((micros < MIN_MICROS) | (micros > MAX_MICROS)), f"lies outside the years 1 to 9999 as {kind}")
    local = np.full(len(null), kind == "excel") & ~null
    return Stamps(micros, local, null, np.zeros(len(null), dtype=bool))


def _serial_part(part: pa.Array, kind: str) -> Micros:
    """What stands behind the point: of days, which Excel holds as a float, to the millisecond; else exactly."""
    if kind == "excel":
        fraction = pc.binary_join_element_wise("0.", pc.if_else(pc.equal(part, ""), "0", part), "")
        days = fraction.cast(pa.float64()).to_numpy(zero_copy_only=False)
        rounded: Micros = np.rint(days * (_DAY // 1000)).astype(np.int64) * 1000
        return rounded
    digits = len(str(SERIALS[kind])) - 1
    finer = pc.match_substring_regex(part, rf"^\d{{{digits}}}0*[1-9]").to_numpy(zero_copy_only=False)
    _refuse(finer, "is finer than a microsecond")
    if not digits:
        return np.zeros(len(part), dtype=np.int64)
    return _numbers(pc.utf8_slice_codeunits(pc.utf8_rpad(part, digits, "0"), 0, digits).cast(pa.int64()))


def _numbers(column: pa.Array) -> Micros:
    found: Micros = column.to_numpy(zero_copy_only=False)
    return found


def _refuse(wrong: Mask, reason: str = "is not an existing date and time") -> None:
    if wrong.any():
        raise TimeFault(int(np.flatnonzero(wrong)[0]), reason)


_SHAPES = (
    (r"(\d{1,2})([./-])(\d{1,2})[./-]\d{4}", None),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d"),
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
    (r"\d{8}", "%Y%m%d"),
    (r"\d{8}T?\d{4}", "%Y%m%d%H%M"),
    (r"\d{10}\.\d+", "unix-s"),
    (r"\d{13}", "unix-ms"),
    (r"\d{16}", "unix-us"),
    (r"\d{5}(\.\d+)?", "excel"),
)


def format_hint(text: str) -> list[str]:
    """The formats that would read a text, likely ones; none where it looks like no time."""
    text = text.strip()
    if re.fullmatch(r"\d{10}", text):
        return [*(["%Y%m%d%H"] if re.match(r"(19|20)\d\d(0[1-9]|1[0-2])[0-3]\d[0-2]\d", text) else []), "unix-s"]
    if re.fullmatch(r"\d{8} \d{4}", text):
        return ["%Y%m%d %H%M"]
    date, gap, clock = re.fullmatch(r"(\S*)([T ]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr] # always matches
    behind = ""
    if clock:
        if not (found := re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?(\.\d+)?", clock)):
            return []
        behind = f"{gap}%H:%M" + (":%S" if found[1] else "") + (".%f" if found[2] else "")
    for shape, form in _SHAPES:
        if match := re.fullmatch(shape, date):
            if form is not None:
                return [form + behind]
            first, mark, second = int(match[1]), match[2], int(match[3])
            day_first = [f"%d{mark}%m{mark}%Y{behind}"] if second <= 12 else []
            month_first = [f"%m{mark}%d{mark}%Y{behind}"] if first <= 12 else []
            return day_first + month_first
    return []
