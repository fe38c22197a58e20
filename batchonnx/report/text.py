"""Text for people: numbers, durations, and foreign text made harmless. Imports nothing heavy."""

from __future__ import annotations

from math import floor, log10


def printable(text: str) -> str:
    """Foreign text (a column's name, an error's message) without control characters.

    Newlines and escapes are shown as such, so that data can't colour or rewrite a terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, width: int) -> str:
    """At most `width` characters, the cut shown."""
    return text if len(text) <= width else text[: width - 1] + "…"


def count(number: float) -> str:
    """1234567 -> 1,234,567."""
    return f"{number:,.0f}"


def amount(number: float) -> str:
    """1234.5 -> 1,234; 12.3456 -> 12.35; 0.00004183 -> 0.0000418: hours and money, never with an exponent."""
    if number >= 1000:
        return count(number)
    if number <= 0:
        return "0"
    places = 2 if number >= 1 else 2 - floor(log10(number))
    return f"{number:.{places}f}".rstrip("0").rstrip(".")


def moment(stamp: str) -> str:
    """2026-11-22T02:15:04.312Z -> 2026-11-22 02:15:04 UTC; anything else as it is."""
    is_utc = len(stamp) > 19 and stamp[10] == "T" and stamp.endswith("Z")
    return f"{stamp[:10]} {stamp[11:19]} UTC" if is_utc else stamp


def of_bytes(number: float) -> str:
    """14842769 -> 14.8 MB, in powers of ten as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def plural(number: int, noun: str) -> str:
    """1 row, 2,000 rows; batch, batches."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count(number)} {noun}{ending}"
