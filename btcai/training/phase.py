"""One phase of training: its optimizer, when it validates, and its updates, which outlive kills and explosions."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from btcai.models.actor_critic import ActorCritic
from btcai.training import parallel, stopping
from btcai.training.health import BlewUp, TrainingError
from btcai.training.resume import Checkpoints, Facts, Live

logger = logging.getLogger(__name__)

Row = dict[str, float]
Step = Callable[[int, float], Row]
"""Update from 0, share of the learning rate -> what was measured; BlewUp where training is not sound afterwards."""

VALIDATIONS = 4  # times a phase of training looks at the validation span
LEAST_APART, MOST = 10, 50
"""Updates between two checkpoints, and checkpoints of a phase: a kill costs ten updates, or 2 % of a long phase."""
ROLLBACKS = 3
"""Of a phase at most: the learning rate is an eighth by then."""


@dataclass(kw_only=True, eq=False)
class Memory:
    """What a phase remembers from update to update beside its `Live`.

    kept: the best weights so far; facts: JSON values, such as their score.
    """

    kept: dict[str, Tensor]
    facts: Facts


def survivable(step: Step, live: Live, memory: Memory, updates: int, checkpoints: Checkpoints | None) -> Iterator[Row]:
    """Make the updates, each with its number from 1 in its row; where there are checkpoints, go on from the newest.

    The rows before it are yielded again: a run that was killed gives the rows and ends with the bits of one that was
    not.

    An update that blew up is rolled back, with checkpoints or without, to the update of the last one: all but the
    random generators, so that other stretches of market come (as Chowdhery et al. 2022, arXiv 2204.02311, section 5.1,
    skip batches), and the learning rate is halved from then on. The next row tells: rolled_back_from, the update that
    blew up, and rate_share. TrainingError after ROLLBACKS of them. Stopped at the next checkpoint where that is asked:
    anywhere else what is rolled back to would depend on it.
    """
    update, rollbacks, rows, told = 0, 0, list[Row](), Row()
    if checkpoints is not None and (found := checkpoints.latest()) is not None:
        memory.kept, memory.facts = live.restore(found.tensors, found.facts)
        update, rollbacks, rows = found.update, found.facts["rollbacks"], found.facts["rows"]
        logger.info("%s: going on after update %d of %d", checkpoints.folder, update, updates)
        yield from rows
    good, good_update = live.capture(memory.kept, memory.facts), update
    while update < updates:
        if checkpoints is not None and good_update == update and parallel.any_of(stopping.is_asked()):
            raise stopping.Stopped(
                f"training was asked to stop and did after update {update} of {updates}; what was done is kept in "
                f"{checkpoints.folder.parent}; go on with: btcai run (or btcai run --force, where that was asked)"
            )
        try:
            row = step(update, 0.5**rollbacks)
        except BlewUp as blown:
            _report(blown, update + 1, updates, good_update, rollbacks)
            memory.kept, memory.facts = live.restore(*good, generators=False)
            rollbacks += 1
            told = {"rolled_back_from": update + 1, "rate_share": 0.5**rollbacks}
            update = good_update
            continue
        update += 1
        rows.append({"update": update, **row, **told})
        told = {}
        if update % updates_apart(updates) == 0 or update == updates:
            good, good_update = live.capture(memory.kept, memory.facts), update
            if checkpoints is not None:
                checkpoints.save(update, good[0], {**good[1], "rollbacks": rollbacks, "rows": rows})
        yield rows[-1]


def say_kept(name: str, update: int, updates: int) -> None:
    """Of which update (0: of before the first) a phase that has ended keeps the weights; the curves show later ones."""
    if update:
        logger.info("%s: keeps the weights of update %d of %d", name, update, updates)
    else:
        logger.info("%s: keeps the weights it began with: none of %d updates validated better", name, updates)


def updates_apart(updates: int) -> int:
    """Updates from one checkpoint to the next in a phase of so many."""
    return max(LEAST_APART, -(-updates // MOST))


def make_optimizer(model: ActorCritic, encoder_share: float = 1.0) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101) of what multiplies inputs in linear maps.

    Rate and decay are set at every update, by `set_rates`; everything before the head has `encoder_share` of the rate.
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    head = {id(parameter) for parameter in model.head.parameters()}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in linear, id(parameter) in head), []).append(parameter)
    settings = [
        {"params": found, "weight_decay": 0.0, "decays": is_linear, "share": 1.0 if in_head else encoder_share}
        for (is_linear, in_head), found in groups.items()
    ]
    return torch.optim.AdamW(settings, eps=1e-5, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, rate: float, decay: float) -> None:
    """The learning rate of an update, for each group its share of it, and the decay of linear maps."""
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = rate * group["share"], decay * group["decays"]


def is_due(update: int, updates: int) -> bool:
    """True VALIDATIONS times, evenly, the last one at the end."""
    return (update + 1) * VALIDATIONS // updates > update * VALIDATIONS // updates


def _report(blown: BlewUp, update: int, updates: int, good_update: int, rollbacks: int) -> None:
    """A warning of the rollback to come; TrainingError where there were enough."""
    if rollbacks == ROLLBACKS:
        raise TrainingError(
            f"training must stay finite, but blew up {rollbacks + 1} times, now at update {update} of {updates}: "
            f"{blown}; look at the bars with: btcai stage validate, or lower learning_rate in params.yaml"
        ) from blown
    logger.warning(
        "update %d of %d blew up: %s; back to update %d at half the learning rate, rollback %d of %d",
        update, updates, blown, good_update, rollbacks + 1, ROLLBACKS,
    )  # fmt: skip
