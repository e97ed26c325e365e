"""Numbers as a person reads them: three significant digits, a real minus sign, intervals in brackets."""

from __future__ import annotations

import math

from testbed.compare.statistics import Estimate

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"


def figure(value: float, digits: int = 3) -> str:
    """Three significant digits, thousands separated, never more than two after the point: 0.42, 9.4, 118, 84,100."""
    if not math.isfinite(value):
        return "?"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0.0
    return minus(f"{rounded:,.{min(decimals, 2)}f}")


def signed(value: float) -> str:
    """`figure`, with its sign."""
    text = figure(value)
    return text if value < 0 or text == "0" else f"+{text}"


def ratio(value: float) -> str:
    """Two digits after the point."""
    return minus(f"{value:.2f}") if math.isfinite(value) else "?"


def interval(estimate: Estimate) -> str:
    """`9.1 to 9.8`, the bounds of a difference."""
    if not math.isfinite(estimate.low):
        return "too few rounds"
    return f"{_rounded(estimate.low, estimate)} to {_rounded(estimate.high, estimate)}"


def centre(estimate: Estimate) -> str:
    """The centre with its sign, as many digits as its interval."""
    if not math.isfinite(estimate.centre):
        return "?"
    return _rounded(estimate.centre, estimate, sign="+")


def ratio_interval(estimate: Estimate) -> str:
    """`1.60 to 1.66`"""
    if not math.isfinite(estimate.high):
        return "too few rounds"
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def precision(estimate: Estimate) -> int:
    """How many digits after the point are worth printing, given how wide the interval is: at most 2.

    Negative for figures of more than three digits: the last ones are noise.
    """
    largest = max(abs(bound) for bound in (estimate.low, estimate.centre, estimate.high) if math.isfinite(bound))
    if largest >= 1000:
        return 2 - math.floor(math.log10(largest))
    least = 1 if abs(estimate.centre) < 100 else 0
    if not math.isfinite(estimate.half_width) or estimate.half_width == 0:
        return least
    return min(max(-math.floor(math.log10(estimate.half_width)), least), 2)


def _rounded(value: float, estimate: Estimate, *, sign: str = "") -> str:
    decimals = precision(estimate)
    return minus(f"{round(value, decimals):{sign},.{max(decimals, 0)}f}")


def minus(text: str) -> str:
    """Hyphens before digits become minus signs."""
    return text.replace("-", MINUS)
