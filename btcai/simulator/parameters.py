"""What a simulated market is like: the numbers of bars.py, by name, on disk as JSON."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from btcai.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MarketParameters:
    """Units are in the names; durations are means. The defaults are the embedded market's."""

    first_price_usdt: float = 46_000.0
    annual_volatility: float = 0.35
    """In the normal regime, before jumps."""
    regime_scale: tuple[float, float, float] = (0.48, 1.0, 2.0)
    """Of volatility: calm, normal, stormy."""
    regime_days: tuple[float, float, float] = (6.0, 9.0, 2.5)
    drift_per_year: tuple[float, float, float] = (-0.60, 0.20, 1.00)
    drift_days: tuple[float, float, float] = (45.0, 60.0, 50.0)
    fast_decay: float = 0.86
    slow_decay: float = 0.998
    """Of the two variance components: half-lives of 5 bars and 1.2 days."""
    fast_weight: float = 0.56
    slow_weight: float = 0.37
    """Of variance; the rest is constant."""
    shock_cap: float = 200.0
    """Largest squared shock that feeds back, in mean variances."""
    reversal: float = 0.02
    """Share of the last bar's return that the next gives back on average."""
    jumps_per_bar: float = 0.0008
    jump_sigmas: float = 9.0
    """Standard deviation of a jump, in sigma of the bar."""
    jump_mean_sigmas: float = -1.5
    """Down more than up: the skew."""
    mean_volume_btc: float = 95.0
    hour_scale: tuple[float, ...] = (
        1.06, 1.02, 0.91, 0.80, 0.76, 0.75, 0.78, 0.81, 0.86, 0.82, 0.81, 0.84,
        1.04, 1.22, 1.42, 1.33, 1.24, 1.16, 1.14, 1.14, 1.11, 1.06, 1.02, 0.95,
    )  # fmt: skip
    """Relative volatility by UTC hour (quiet Asian night, American open): about what Binance's BTC/USDT bars of 2022 to
    2025 show; so is the next."""
    day_scale: tuple[float, ...] = (1.13, 1.13, 1.14, 1.10, 1.08, 0.68, 0.75)
    """The same by weekday, Monday first."""

    def __post_init__(self) -> None:
        """DataError where a number makes no market."""
        numbers = {field.name: np.atleast_1d(getattr(self, field.name)) for field in fields(self)}
        three = ("regime_scale", "regime_days", "drift_per_year", "drift_days")
        for name, holds, rule in (
            *((name, bool(np.isfinite(found).all()), "finite") for name, found in numbers.items()),
            *((name, len(numbers[name]) == 3, "3 numbers") for name in three),
            ("shock_cap", self.shock_cap >= 0, "at least 0"),
            ("first_price_usdt", self.first_price_usdt > 0, "above 0"),
            ("annual_volatility", self.annual_volatility > 0, "above 0"),
            ("regime_scale", min(self.regime_scale) > 0, "above 0"),
            ("regime_days", min(self.regime_days) > 0, "above 0"),
            ("drift_days", min(self.drift_days) > 0, "above 0"),
            ("fast_decay", 0 <= self.fast_decay < 1, "in 0 .. 1"),
            ("slow_decay", 0 <= self.slow_decay < 1, "in 0 .. 1"),
            ("fast_weight", self.fast_weight >= 0, "at least 0"),
            ("slow_weight", 0 <= self.slow_weight <= 1 - self.fast_weight, "at least 0, both weights at most 1"),
            ("reversal", abs(self.reversal) < 1, "between -1 and 1"),
            ("jumps_per_bar", 0 <= self.jumps_per_bar < 1, "in 0 .. 1"),
            ("jump_sigmas", self.jump_sigmas >= 0, "at least 0"),
            ("mean_volume_btc", self.mean_volume_btc > 0, "above 0"),
            ("hour_scale", len(self.hour_scale) == 24 and min(self.hour_scale) > 0, "24 numbers above 0"),
            ("day_scale", len(self.day_scale) == 7 and min(self.day_scale) > 0, "7 numbers above 0"),
        ):
            if not holds:
                raise DataError(f"{name} of a simulated market must be {rule}, was {getattr(self, name)}; mend it")

    def to_json(self) -> str:
        """Strict JSON, a line a field."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """DataError where the file is not what to_json writes."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} must be JSON of a market's parameters: {error}; mend it") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or (unknown := set(found) - known):
            named = ", ".join(sorted(unknown)) if isinstance(found, dict) else type(found).__name__
            raise DataError(f"{path} must hold parameters of a simulated market alone, was {named}; mend it")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise DataError(f"{path} must hold numbers: {error}; mend it") from error
