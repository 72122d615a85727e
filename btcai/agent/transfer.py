"""Handing knowledge from one bucket's network to another's."""

import torch

from btcai.models.actor_critic import ActorCritic


@torch.no_grad()
def hand_over(teacher: ActorCritic, student: ActorCritic, alpha: float) -> None:
    """Start `student` from `teacher`: trunk = alpha * teacher's + (1 - alpha) * fresh, patch stem resampled to fit.

    The share of fresh initialisation keeps the trunk plastic (shrink and perturb, Ash & Adams 2020). Heads stay fresh:
    horizons, lots and rewards mean other things in another bucket. The scaler travels with the stem.
    """
    student.stem.resample_from(teacher.stem)
    given = teacher.trunk.state_dict()
    for name, weight in student.trunk.state_dict().items():
        weight.copy_(alpha * given[name] + (1 - alpha) * weight)


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
