"""What `btcai ablate` compares: changes of params.yaml by name, each one choice taken out or one extra put in."""

from collections.abc import Mapping
from dataclasses import dataclass

from btcai.config import Config
from btcai.errors import ConfigError
from btcai.params import changed

BASE, SCRATCH = "as configured", "from scratch"
"""What every other arm is held against, and what hand-overs are to beat."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """changes: "section.name" of params.yaml -> value; only_after: whether there must be a bucket before."""

    changes: Mapping[str, bool | int | float | str]
    hand_over: bool = False


ARMS: Mapping[str, Arm] = {
    BASE: Arm(changes={}),
    SCRATCH: Arm(
        changes={
            "transfer.selection": False,
            "transfer.stem": False,
            "transfer.alpha": 0.0,
            "transfer.forecasts": False,
            "transfer.policy": False,
            "transfer.rate_share": 1.0,
            "transfer.kickstart": 0.0,
        },
        hand_over=True,
    ),
    "without selection handed on": Arm(changes={"transfer.selection": False}, hand_over=True),
    "without the stem handed on": Arm(changes={"transfer.stem": False}, hand_over=True),
    "without the trunk handed on": Arm(changes={"transfer.alpha": 0.0}, hand_over=True),
    "whole trunk": Arm(changes={"transfer.alpha": 1.0}, hand_over=True),
    "trunk shrunk and perturbed": Arm(changes={"transfer.alpha": 0.8}, hand_over=True),
    "forecasts handed on": Arm(changes={"transfer.forecasts": True}, hand_over=True),
    "without forecasts handed on": Arm(changes={"transfer.forecasts": False}, hand_over=True),
    "policy handed on": Arm(changes={"transfer.policy": True}, hand_over=True),
    "without the policy handed on": Arm(changes={"transfer.policy": False}, hand_over=True),
    "prioritised stretches": Arm(changes={"ppo.replay.prioritised": 0.5}),
    "learning rate by a controller": Arm(changes={"ppo.adaptive_rate": True}),
    "slower after a hand-over": Arm(changes={"transfer.rate_share": 0.3}, hand_over=True),
    "kickstarted": Arm(changes={"transfer.kickstart": 1.0}, hand_over=True),
}


def arm_config(config: Config, name: str) -> Config:
    """The settings of an arm."""
    if name not in ARMS:
        raise ConfigError(f"an arm must be one of {', '.join(ARMS)}, was {name}; see them with: btcai ablate --list")
    return changed(config, ARMS[name].changes)


def is_same(config: Config, name: str) -> bool:
    """Whether an arm changes nothing of what is configured, so that there is nothing to compare."""
    return name != BASE and arm_config(config, name) == config
