"""Numbers as people write and read them: conventions, sparsities, budgets. Nothing else formats a number."""

from __future__ import annotations

import re
from enum import StrEnum
from fractions import Fraction

from iftplan.base.errors import InputError


class Convention(StrEnum):
    """Convention of a count: one for each multiply-accumulate, or two floating-point operations per MAC."""

    MAC = "mac"
    FLOP = "flop"

    @property
    def per_mac(self) -> int:
        """Counts in this convention for each multiply-accumulate."""
        return 1 if self is Convention.MAC else 2

    @property
    def unit(self) -> str:
        """The unit as it is printed."""
        return "MACs" if self is Convention.MAC else "FLOPs"


_NUMBER = re.compile(
    r"\s*(?P<sign>[+-]?)(?P<top>\d+(?:\.\d*)?|\.\d+)(?:/(?P<bottom>\d+)|(?P<percent>\s*%))?\s*"
)
_SIZE = re.compile(r"-?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,3})?", re.I | re.ASCII)
_EXPONENT = re.compile(r"[+-]?\d{1,3}")
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12, "p": 10**15}
_COUNT = re.compile(
    r"\s*(?P<number>\d+(?:[_ ]\d+)*(?:\.\d+)?)\s*(?P<suffix>[kmgbtp]?)\s*(?P<unit>macs?|flops?)?\s*", re.I
)


def refuse_long(text: str, named: str, digits: int = 18) -> None:
    """Refuse a number with too many digits, before anything is computed with it.

    Args:
        text: as it was written.
        named: what the message calls it.
        digits: most digits in a row.

    Raises:
        InputError: more than `digits` digits in a row, or more than 500 characters.
    """
    if len(text) > 500 or re.search(rf"\d{{{digits + 1}}}", text):
        shown = named if len(named) <= 80 else f"{named[:77]}..."
        raise InputError(
            f"{shown} has too many digits: a number can have at most {digits}, written in at most 500 characters."
        )


def parse_fraction(text: str, what: str) -> Fraction:
    """Read `0.75`, `3/4` or `75%` exactly.

    Raises:
        InputError: the text is none of these.

    Example:
        >>> parse_fraction("75%", "sparsity")
        Fraction(3, 4)
    """
    refuse_long(text, f"{what} {text!r}")
    match = _NUMBER.fullmatch(text)
    if not match or (match["bottom"] and int(match["bottom"]) == 0):
        raise InputError(f"{what} {text!r} is not a number; write it as 0.75, 3/4 or 75%.")
    value = Fraction(match["top"]) / (
        int(match["bottom"]) if match["bottom"] else 100 if match["percent"] else 1
    )
    return -value if match["sign"] == "-" else value


def parse_tolerance(text: str) -> Fraction:
    """Read a tolerated relative difference: `0.001`, `1e-3`, `1/1000` or `0.1%`.

    Raises:
        InputError: not a number, or negative.

    Example:
        >>> parse_tolerance("1e-3")
        Fraction(1, 1000)
    """
    number, e, exponent = text.lower().partition("e")
    if not _NUMBER.fullmatch(number) or (e and not _EXPONENT.fullmatch(exponent)):
        refuse_long(text, f"tolerance {text!r}")
        raise InputError(f"tolerance {text!r} is not a number; write it as 1e-3, 0.001, 1/1000 or 0.1%.")
    value = parse_fraction(number, "tolerance") * (Fraction(10) ** int(exponent) if e else 1)
    if value < 0:
        raise InputError(f"tolerance {text} is negative; the smallest is 0, which means exact equality.")
    return value


def parse_sparsity(text: str | float | Fraction) -> Fraction:
    """Read a sparsity, the fraction of weights that are zero, in [0, 1).

    A float stands for its shortest decimal form, so that 0.9 means 9/10.

    Raises:
        InputError: not a number, negative, or 1 and above.

    Example:
        >>> parse_sparsity(0.9)
        Fraction(9, 10)
    """
    value = text if isinstance(text, Fraction) else parse_fraction(str(text), "sparsity")
    if not 0 <= value < 1:
        hint = (
            "The nearest sparsity is 0."
            if value < 0
            else f"Did you mean {decimal_text(value)}%, which is {decimal_text(value / 100)}?"
            if 1 < value < 100
            else "0.99 leaves one weight of a hundred."
        )
        raise InputError(
            f"sparsity {text} is outside [0, 1): at 1 no weights are left, and a sparsity cannot be negative. {hint}"
        )
    return value


def parse_count(text: str) -> int:
    """Read a budget in MACs such as `560M`, `1.8G`, `555468800` or `1.2 GFLOPs` (2 FLOPs make one MAC).

    Raises:
        InputError: not a count, or no whole number of MACs.

    Example:
        >>> parse_count("1.5k"), parse_count("3 kFLOPs")
        (1500, 1500)
    """
    refuse_long(text, f"budget {text!r}")
    match = _COUNT.fullmatch(text)
    if not match:
        raise InputError(
            f"budget {text!r} is not a count; write 560M, 1.8G or 555468800 (MACs), or 1.2GFLOPs. Only a plan's budget can be a share of a dense model's cost, such as 0.5x."
        )
    value = Fraction(re.sub(r"[_ ]", "", match["number"])) * _SUFFIXES[match["suffix"].lower()]
    if (match["unit"] or "").lower().startswith("flop"):
        value /= 2
    if value.denominator != 1 or value == 0:
        raise InputError(f"budget {text!r} is {value} MACs; a budget is a positive whole number of MACs.")
    return int(value)


def parse_size(text: str, what: str, *, zero: bool = False) -> float:
    """Read a positive size such as `1e8`, `100M`, `1.3B` or `2500000`.

    Args:
        text: as it is written.
        what: for the message.
        zero: whether 0 is one too.

    Raises:
        InputError: not a number, none above zero, or none that a machine has.

    Example:
        >>> parse_size("1.3B", "--params"), parse_size("1e21", "--compute")
        (1300000000.0, 1e+21)
    """
    number = text.strip().replace("_", "")
    factor = _SUFFIXES.get(number[-1:].lower(), 0) if number[-1:].isalpha() else 1
    number = number[:-1] if number[-1:].isalpha() else number
    if not factor or not _SIZE.fullmatch(number):
        raise InputError(f"{what} {text[:60]!r} is not a number; write it as 1e8, 100M or 1.3B.")
    value = float(number) * factor
    if not (0 < value < 1e60 or (zero and value == 0)):
        raise InputError(f"{what} {text[:60]} is out of range; it must be above 0 and below 1e60.")
    return value


def decimal_text(value: Fraction) -> str:
    """A short decimal where it is exact in at most six places, else `p/q`.

    Example:
        >>> decimal_text(Fraction(3, 4)), decimal_text(Fraction(1, 3))
        ('0.75', '1/3')
    """
    scaled = value * 10**6
    return f"{float(value):.6f}".rstrip("0").rstrip(".") if scaled.denominator == 1 else str(value)


def fraction(value: Fraction) -> str:
    """The `p/q` form used in documents; whole numbers too (`1/1`), so that the type is visible."""
    return f"{value.numerator}/{value.denominator}"


def decimal(value: Fraction | float, digits: int = 6) -> str:
    """A decimal for tables: fixed digits."""
    return f"{float(value):.{digits}f}"


def count(value: int) -> str:
    """An exact count with thin groups: `555 468 800`."""
    return f"{value:,}".replace(",", " ")


def by_number(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Key that sorts names as people do, by the numbers in them.

    Example:
        >>> sorted(["body.10", "body.2", "body"], key=by_number)
        ['body', 'body.2', 'body.10']
    """
    parts = re.findall(r"\d+|\D+", name)
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def abbreviate(value: float) -> str:
    """A count to four figures with its SI prefix, from 10¹⁵ on with its power of ten.

    Example:
        >>> abbreviate(555468800), abbreviate(1.267e18)
        ('555.5 M', '1.267e18')
    """
    if abs(value) >= 10**15:
        return f"{value:.4g}".replace("e+", "e")
    for factor, prefix in (
        (10**12, "T"),
        (10**9, "G"),
        (10**6, "M"),
        (10**3, "k"),
    ):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g}"


def bits(value: float) -> str:
    """A search-space size: `1.23e+06 bits`."""
    return f"{value:.4g} bits"


def with_sign(value: int) -> str:
    """A difference with its sign: `+37 748 736`."""
    return f"{'+' if value >= 0 else '−'}{count(abs(value))}"


def percent(value: Fraction | float, digits: int = 3) -> str:
    """A relative difference in per cent with its sign, to `digits` figures.

    Example:
        >>> percent(Fraction(1, 8)), percent(-0.5), percent(119)
        ('+12.5 %', '−50 %', '+11 900 %')
    """
    size = abs(float(value)) * 100
    shown = count(round(size)) if size >= 1000 else f"{size:.{digits}g}"
    return f"{'+' if value >= 0 else '−'}{shown} %"


def share(value: Fraction | float) -> str:
    """A part of a whole in per cent, to a tenth, or to one figure where it is less.

    Example:
        >>> share(Fraction(7, 8)), share(0.00008), share(0), share(120)
        ('87.5 %', '0.008 %', '0.0 %', '12 000 %')
    """
    size = float(value) * 100
    if size >= 1000:
        return f"{count(round(size))} %"
    if not 0 < size < 0.05:
        return f"{size:.1f} %"
    return f"{size:.1g} %" if size >= 0.0001 else "< 0.0001 %"
