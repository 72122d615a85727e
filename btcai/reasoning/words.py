"""How numbers read in sentences; an undefined one is "unknown"."""

import math

from btcai.schema import BAR_SECONDS

UNKNOWN = "unknown"


def percent(frac: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"."""
    return f"{number(100.0 * frac, digits)} %" if math.isfinite(frac) else UNKNOWN


def signed_percent(frac: float, digits: int = 2) -> str:
    """0.001 -> "+0.10 %"."""
    return f"{signed(100.0 * frac, digits)} %" if math.isfinite(frac) else UNKNOWN


def number(value: float, digits: int = 1) -> str:
    """1234.5 -> "1,234.5"; never "-0.0"."""
    if not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def signed(value: float, digits: int = 1) -> str:
    """1.25 -> "+1.2"; what rounds to nothing has no sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and math.isfinite(value) and text.strip("0.,") else text


def lasting(bars: float) -> str:
    """36 bars -> "3 h": the largest unit that fits, one decimal at most."""
    if not math.isfinite(bars):
        return UNKNOWN
    minutes = bars * BAR_SECONDS / 60
    for unit, size in (("d", 1440.0), ("h", 60.0)):
        if minutes >= size:
            return f"{round(minutes / size, 1):g} {unit}"
    return f"{minutes:g} min"


def counted(n: float, one: str) -> str:
    """3, "lot" -> "3 lots"."""
    return f"{n:.0f} {one}" if n == 1 else f"{n:.0f} {one}s"


def capital(text: str) -> str:
    """With its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]
