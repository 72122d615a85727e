"""What a simulated market is like: the numbers of bars.py, by name, on disk as JSON."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from btcai.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MarketParameters:
    """Units are in the names; durations are means.

    The defaults are the embedded market's: fitted to Binance's BTC/USDT of 2022 to 2025 by `btcai simulate fit`, but
    for the first price, drift and shock_cap.
    """

    first_price_usdt: float = 46_000.0
    annual_volatility: float = 0.344
    """In the normal regime, before jumps."""
    regime_scale: tuple[float, float, float] = (0.62, 1.0, 1.68)
    """Of volatility: calm, normal, stormy."""
    regime_days: tuple[float, float, float] = (6.39, 9.01, 2.66)
    drift_per_year: tuple[float, float, float] = (-0.60, 0.20, 1.00)
    drift_days: tuple[float, float, float] = (45.0, 60.0, 50.0)
    fast_decay: float = 0.763
    slow_decay: float = 0.99794
    """Of the two variance components: half-lives of 2.6 bars and 1.2 days."""
    fast_weight: float = 0.597
    slow_weight: float = 0.342
    """Of variance; the rest is constant."""
    shock_cap: float = 200.0
    """Largest squared shock that feeds back, in mean variances."""
    reversal: float = 0.0312
    """Share of the last bar's return that the next gives back on average."""
    follow_mean: float = 0.132
    follow_std: float = 0.617
    """Within a bar, how much each step repeats the one before it: some bars are all body and some all wicks."""
    jumps_per_bar: float = 0.000821
    jump_sigmas: float = 10.8
    """Standard deviation of a jump, in sigma of the bar."""
    jump_mean_sigmas: float = -1.42
    """Down more than up: the skew."""
    mean_volume_btc: float = 160.0
    volume_noise: float = 0.314
    """Share of a bar's volume that is its own chance."""
    mood_scale: tuple[float, float, float] = (0.79, 1.0, 1.32)
    """Of trading beside what volatility asks for, over days; the next: over months."""
    mood_days: float = 0.94
    tide_scale: tuple[float, float, float] = (0.336, 1.0, 2.73)
    tide_days: float = 74.2
    hour_scale: tuple[float, ...] = (
        0.95, 1.05, 0.98, 0.86, 0.77, 0.74, 0.76, 0.81, 0.84, 0.82, 0.82, 0.81,
        0.91, 1.05, 1.38, 1.45, 1.28, 1.17, 1.14, 1.14, 1.13, 1.07, 1.05, 1.00,
    )  # fmt: skip
    """Relative volatility at each full UTC hour: quiet Asian night, American open."""
    day_scale: tuple[float, ...] = (1.13, 1.13, 1.13, 1.10, 1.08, 0.68, 0.75)
    """Relative volatility by weekday, Monday first."""

    def __post_init__(self) -> None:
        """DataError where a number makes no market."""
        numbers = {field.name: np.atleast_1d(getattr(self, field.name)) for field in fields(self)}
        three = ("regime_scale", "regime_days", "drift_per_year", "drift_days", "mood_scale", "tide_scale")
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
            ("follow_std", self.follow_std >= 0, "at least 0"),
            ("mean_volume_btc", self.mean_volume_btc > 0, "above 0"),
            ("volume_noise", 0 <= self.volume_noise <= 1, "in 0 .. 1"),
            ("mood_scale", min(self.mood_scale) > 0, "above 0"),
            ("mood_days", self.mood_days > 0, "above 0"),
            ("tide_scale", min(self.tide_scale) > 0, "above 0"),
            ("tide_days", self.tide_days > 0, "above 0"),
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
