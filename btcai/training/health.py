"""Whether training is sound: updates that blew up, and policies that collapsed, by name."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from btcai.errors import BtcaiError
from btcai.schema import Action

GRAD_NORM_LIMIT: Final = 1e5
"""Before clipping; above it a gradient has exploded. Training meets norms of 0.2 to 12, and 6e3 where returns have no
noise at all, from which it recovers."""
FLAT_FRAC: Final = 0.01
"""Of the decision times: with open lots at no more a policy is flat; long (or short) at all but these, always so."""
ONE_ACTION_FRAC: Final = 0.999
"""Of the decisions: an action with this share is the only one. On the yardstick good policies wait at 95 %."""


class TrainingError(BtcaiError):
    """Training that blows up again and again."""


class BlewUp(Exception):
    """An update after which training is not sound, and why; to be rolled back."""


def fault(losses: Mapping[str, float], grad_norm: float, *modules: nn.Module) -> str | None:
    """What is not sound after an update, to roll it back for: a loss, the gradient's norm before clipping, a weight.

    None where every one is finite and the norm at most GRAD_NORM_LIMIT.
    """
    for name, loss in losses.items():
        if not math.isfinite(loss):
            return f"the {name} loss is {loss}"
    if not grad_norm <= GRAD_NORM_LIMIT:
        return f"the gradient's norm is {grad_norm:.4g}, above {GRAD_NORM_LIMIT:g}"
    for module in modules:
        weights = module.state_dict()
        if not torch.cat([weight.flatten().cpu() for weight in weights.values()]).isfinite().all():
            name = next(name for name, weight in weights.items() if not weight.isfinite().all())
            return f"the weight {name} is not finite"
    return None


def behaviour(action: NDArray[np.integer[Any]], lots_frac: NDArray[np.floating[Any]]) -> dict[str, float]:
    """What a policy does: actions and open lots (below 0 when short) at the same decisions, of any shape -> shares.

    share_hold .. share_close_all, of the decisions; long_frac and short_frac, of the decision times with a lot open.
    """
    counts = np.bincount(action.ravel(), minlength=len(Action)) / action.size
    shares = {f"share_{kind.name.lower()}": float(counts[kind]) for kind in Action}
    return {**shares, "long_frac": float((lots_frac > 0).mean()), "short_frac": float((lots_frac < 0).mean())}


def collapse(seen: Mapping[str, float]) -> str | None:
    """How the policy of a `behaviour` has collapsed: "flat", "always long", "always short", "one action", or not."""
    if seen["long_frac"] + seen["short_frac"] <= FLAT_FRAC:
        return "flat"
    if seen["long_frac"] >= 1 - FLAT_FRAC:
        return "always long"
    if seen["short_frac"] >= 1 - FLAT_FRAC:
        return "always short"
    if max(seen[f"share_{kind.name.lower()}"] for kind in Action) >= ONE_ACTION_FRAC:
        return "one action"
    return None
