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
    """changes: "section.name" of params.yaml -> value; hand_over: whether it is one of hand-overs, which the first
    bucket does not have."""

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
            "transfer.kickstart": 0.0,
        },
        hand_over=True,
    ),
    "selection not handed on": Arm(changes={"transfer.selection": False}, hand_over=True),
    "stem not handed on": Arm(changes={"transfer.stem": False}, hand_over=True),
    "trunk not handed on": Arm(changes={"transfer.alpha": 0.0}, hand_over=True),
    "whole trunk": Arm(changes={"transfer.alpha": 1.0}, hand_over=True),
    "forecasts not handed on": Arm(changes={"transfer.forecasts": False}, hand_over=True),
    "policy not handed on": Arm(changes={"transfer.policy": False}, hand_over=True),
    "kickstarted": Arm(changes={"transfer.kickstart": 1.0}, hand_over=True),
    "shared start": Arm(changes={"meta.rounds": 6}),
    "horizons by skill": Arm(changes={"pretrain.horizon_skill": 0.5}),
    "prioritised stretches": Arm(changes={"ppo.replay.prioritised": 0.5}),
    "trajectories learned from again": Arm(changes={"ppo.replay.trajectories": 8}),
    "self-imitation": Arm(changes={"ppo.replay.trajectories": 8, "ppo.replay.self_imitation": True}),
    "learning rate by a controller": Arm(changes={"ppo.adaptive_rate": True}),
    "entropy bonus": Arm(changes={"ppo.entropy_coef": 0.01, "ppo.entropy_frac": 1.0}),
    "entropy bonus by gain": Arm(changes={"ppo.entropy_coef": 0.01, "ppo.entropy_frac": 1.0, "ppo.entropy_by": "gain"}),
    "entropy bonus by unfamiliarity": Arm(
        changes={"ppo.entropy_coef": 0.01, "ppo.entropy_frac": 1.0, "ppo.entropy_by": "unfamiliarity"}
    ),
    "hotter at first": Arm(changes={"ppo.temperature": 2.0, "ppo.entropy_frac": 1.0}),
    "hotter by gain": Arm(changes={"ppo.temperature": 2.0, "ppo.entropy_frac": 1.0, "ppo.entropy_by": "gain"}),
    "costs that rise": Arm(changes={"ppo.cost_ramp_frac": 0.3}),
    "policy trains the encoder too": Arm(changes={"ppo.encoder_every": 4}),
    "no surprise control": Arm(changes={"ppo.surprise_control": 0.0}),
    "no first hold logit": Arm(changes={"ppo.first_hold_logit": 0.0}),
    "no warm-up": Arm(changes={"ppo.warm_up_updates": 0}),
    "no averaged weights": Arm(changes={"ppo.average_decay": 0.0}),
    "no weight decay": Arm(changes={"pretrain.weight_decay": 0.0, "ppo.weight_decay": 0.0}),
}


def arm_config(config: Config, name: str) -> Config:
    """The settings of an arm."""
    if name not in ARMS:
        raise ConfigError(f"an arm must be one of {', '.join(ARMS)}, was {name}")
    return changed(config, ARMS[name].changes)
