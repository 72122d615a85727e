"""Settings of one trading timeframe."""

from typing import Self

from pydantic import Field, model_validator

from btcai.config.section import Section
from btcai.schema import TOKENS


class RewardConfig(Section):
    """Weights of the named reward terms (market/reward.py); the reward is their weighted sum."""

    net_profit: float = Field(ge=0)
    cost: float = Field(ge=0)
    drawdown: float = Field(ge=0)
    win_rate: float = Field(ge=0)
    bonus: float = Field(ge=0)
    goal: float = Field(ge=0)


class BucketConfig(Section):
    """One trading timeframe."""

    patch_bars: int = Field(ge=1)
    max_lots: int = Field(ge=1, le=25)
    horizons_bars: tuple[int, ...] = Field(min_length=1)
    goal_frac: float = Field(gt=0)
    stop_loss_frac: float = Field(ge=0, lt=1)
    """A lot is closed when price moves this far against its entry; 0 turns stops off."""
    take_profit_frac: float = Field(ge=0, le=10)
    """A lot is closed when price moves this far beyond its entry; 0 turns targets off."""
    discount: float = Field(gt=0, lt=1)
    """Per decision (one patch)."""
    reward: RewardConfig

    @property
    def lookback_bars(self) -> int:
        return TOKENS * self.patch_bars

    @property
    def target_bars(self) -> tuple[int, ...]:
        """Over how many bars returns are predicted, (1 + H,): to the next decision, then over each of the horizons."""
        return self.patch_bars, *self.horizons_bars

    @model_validator(mode="after")
    def _horizons_increase(self) -> Self:
        if list(self.target_bars) != sorted(set(self.target_bars)):
            raise ValueError(f"horizons_bars must increase from above patch_bars, was {self.horizons_bars}")
        return self
