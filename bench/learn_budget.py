"""From seconds to updates: trainings are cut by updates, so that the same seed gives the same bits anywhere."""

from collections.abc import Callable
from dataclasses import dataclass

PRETRAIN_SHARE = 0.65
"""Of the seconds of a training, for prediction alone."""

MOST_OVER = 1.05
"""Seconds used over seconds allowed beyond which a goal counts as missed."""

LEAST_USED = 0.9
"""Seconds used over seconds allowed below which a training is made again, with more updates."""

AIM = 0.97
"""Of the seconds allowed are planned for."""


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Of the two phases of a training."""

    pretrain: int
    ppo: int

    def scaled(self, factor: float) -> "Updates":
        """As many times each, a PPO update at least."""
        return Updates(pretrain=int(self.pretrain * factor), ppo=max(1, int(self.ppo * factor)))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds that an update of each phase takes, and what a training takes beside."""

    pretrain_s: float
    ppo_s: float
    fixed_s: float

    def updates(self, seconds: float, pretrain_share: float) -> Updates:
        """The updates that fill AIM of the seconds."""
        planned = AIM * seconds
        pretrain = int(pretrain_share * planned / self.pretrain_s)
        left = planned - self.fixed_s - pretrain * self.pretrain_s
        return Updates(pretrain=pretrain, ppo=max(1, int(left / self.ppo_s)))


def measure_pace(train: Callable[[Updates], float], few: int, more: int) -> Pace:
    """From three trainings (Updates -> seconds), after a short one that compiles and fills caches."""
    train(Updates(pretrain=1, ppo=1))
    short = train(Updates(pretrain=few, ppo=few))
    longer_pretrain = train(Updates(pretrain=more, ppo=few)) - short
    longer_ppo = train(Updates(pretrain=few, ppo=more)) - short
    pretrain_s, ppo_s = (max(longer / (more - few), short / (10 * few)) for longer in (longer_pretrain, longer_ppo))
    return Pace(pretrain_s=pretrain_s, ppo_s=ppo_s, fixed_s=max(0.0, short - few * (pretrain_s + ppo_s)))
