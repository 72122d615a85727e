"""Handing knowledge from one bucket's network to another's."""

from collections.abc import Sequence

import numpy as np
import torch

from btcai.agent.kickstart import Kickstart
from btcai.config import PpoConfig, TransferConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import ForecastHead


@torch.no_grad()
def hand_over(
    teacher: ActorCritic,
    student: ActorCritic,
    config: TransferConfig,
    teacher_bars: Sequence[int],
    student_bars: Sequence[int],
) -> Kickstart | None:
    """Start `student` from `teacher`, bucket to bucket, in either direction.

    Always: the scaler, and trunk = alpha * teacher's + (1 - alpha) * fresh (shrink and perturb, Ash & Adams 2020,
    arXiv 1910.08475: a share of fresh initialisation keeps it plastic). As configured: which features were selected;
    the patch stem resampled to fit; the forecasts, whose horizons are teacher_bars and student_bars, (1 + H,) as in
    BucketConfig.target_bars; and the policy with its values, whose account is in shares of what a bucket may hold, and
    whose forecasts mean the same by rank alone, from the shortest to the longest. The threshold for trading greedily
    comes with it in hold_bias, for PPO to take out. A policy that collapsed is not handed over: a student that starts
    flat tries nothing, and stays flat.

    Returns what PPO needs to go on learning from the teacher, where that is asked for.
    """
    student.stem.feature_mean.copy_(teacher.stem.feature_mean)
    student.stem.feature_std.copy_(teacher.stem.feature_std)
    if config.selection:
        student.stem.relevance.copy_(teacher.stem.relevance)
    if config.stem:
        student.stem.resample_from(teacher.stem)
    given = teacher.trunk.state_dict()
    for name, weight in student.trunk.state_dict().items():
        weight.copy_(config.alpha * given[name] + (1 - config.alpha) * weight)
    if config.forecasts:
        adapt_horizons(teacher.forecast, student.forecast, teacher_bars, student_bars)
    if gives_policy(teacher, config):
        student.head.load_state_dict(teacher.head.state_dict())
        student.value_mean.copy_(teacher.value_mean)
        student.value_std.copy_(teacher.value_std)
        # What n times as many bars earn is sqrt(n) times as large, where returns are independent.
        student.reward_unit.copy_(teacher.reward_unit * (student_bars[0] / teacher_bars[0]) ** 0.5)
        student.hold_bias.copy_(teacher.hold_bias)
    if not config.kickstart or teacher.collapsed:
        return None
    return Kickstart(teacher=teacher, weight=config.kickstart, frac=config.kickstart_frac)


def gives_policy(teacher: ActorCritic, config: TransferConfig) -> bool:
    """Whether a hand-over takes the policy along."""
    return config.policy and not teacher.collapsed


def at_full_cost(ppo: PpoConfig) -> PpoConfig:
    """For agents that trade already: costs are at full size from the first update."""
    return ppo.model_copy(update={"cost_ramp_frac": 0.0})


@torch.no_grad()
def adapt_horizons(
    teacher: ForecastHead, student: ForecastHead, teacher_bars: Sequence[int], student_bars: Sequence[int]
) -> None:
    """Give `student` the forecasts of `teacher` for its own horizons, bars (n,) each, increasing.

    What the last layer says is in units of sigma * sqrt(horizon), so a horizon between two of the teacher's gets their
    weights in the proportion of its logarithm; one beyond them gets those of the nearest.
    """
    places = np.interp(np.log(student_bars), np.log(teacher_bars), np.arange(len(teacher_bars)))
    share = torch.zeros(len(student_bars), len(teacher_bars))
    for row, place in enumerate(places):
        left = min(int(place), len(teacher_bars) - 2)
        share[row, left], share[row, left + 1] = left + 1 - place, place - left
    for name in ("weight", "bias"):
        student_t, steps = getattr(teacher.student, name), getattr(teacher.steps, name)
        by_figure = student_t.unflatten(0, (-1, len(teacher_bars)))  # location, log scale, degrees; then horizons
        getattr(student.student, name).copy_(torch.einsum("st,ft...->fs...", share, by_figure).flatten(0, 1))
        by_horizon = steps.unflatten(0, (len(teacher_bars), -1))
        getattr(student.steps, name).copy_(torch.einsum("st,tq...->sq...", share, by_horizon).flatten(0, 1))


@torch.no_grad()
def mean_trunk(models: list[ActorCritic]) -> dict[str, torch.Tensor]:
    """The mean of several trunks' weights (all descend from one, arXiv 2203.05482), by name."""
    states = [model.trunk.state_dict() for model in models]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


@torch.no_grad()
def blend_trunk(model: ActorCritic, shared: dict[str, torch.Tensor], alpha: float) -> None:
    """trunk <- (1 - alpha) * own + alpha * shared."""
    for name, weight in model.trunk.state_dict().items():
        weight.copy_((1 - alpha) * weight + alpha * shared[name])
