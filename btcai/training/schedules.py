"""What changes over the updates of a phase of PPO: learning rate, exploration, costs. Updates count from 0."""

from dataclasses import replace

from btcai.agent.kickstart import Kickstart
from btcai.agent.ppo import Weights
from btcai.agent.task import Task
from btcai.config import PpoConfig


def rate_at(update: int, updates: int, config: PpoConfig) -> float:
    """The learning rate: rising over the first warm_up_updates, falling to zero over all of them.

    Adam divides by a gradient's own size, so its first steps are whole ones wherever chance points. Without the rise a
    policy could be certain after the first update (entropy below .001) of what it never tried otherwise, and one in
    four stayed out of a market whose next return was shown, or sold at once whatever it had bought; neither a bound on
    the KL of a minibatch nor an entropy bonus helped (LOG.md, 2026-11-28).
    """
    return config.learning_rate * min(1.0, (update + 1) / max(1, config.warm_up_updates)) * (1 - update / updates)


def controlled_rate(rate: float, kl: float, target_kl: float) -> float:
    """The next update's factor of the learning rate, .1 to 3, from this one's and the KL of its last epoch.

    As Schulman et al. 2017 (arXiv 1707.06347, section 4) adapt their penalty: half as much again where an update moved
    the policy by less than two thirds of the target, a third less where by more than half as much again.
    """
    if kl > 1.5 * target_kl:
        return max(0.1, rate / 1.5)
    return min(3.0, 1.5 * rate) if kl < target_kl / 1.5 else rate


def weights_at(update: int, updates: int, config: PpoConfig, kickstart: Kickstart | None, explore: float) -> Weights:
    """Of the parts of the loss; explore as in temperature_at."""
    return Weights(
        clip=config.clip,
        value=config.value_coef,
        entropy=entropy_at(update, updates, config),
        auxiliary=config.prediction_coef,
        teacher=kickstart.weight_at(update, updates) if kickstart is not None else 0.0,
        temperature=temperature_at(update, updates, config, explore),
    )


def entropy_at(update: int, updates: int, config: PpoConfig) -> float:
    """The entropy coefficient, falling to zero over the first entropy_frac of the updates.

    With a bonus left a policy prefers to trade with a small probability at each decision: as good when sampled, but its
    likeliest action, which is what is traded, is to wait.
    """
    return config.entropy_coef * _left(update, updates, config)


def temperature_at(update: int, updates: int, config: PpoConfig, explore: float) -> float:
    """The policy's temperature, falling to 1 over the first entropy_frac of the updates; explore: by gain, its share.

    A policy that was sampled from and judged at the same temperature: its probability ratios are those of PPO.
    """
    share = explore if config.entropy_by == "gain" else 1.0
    return 1.0 + (config.temperature - 1.0) * share * _left(update, updates, config)


def _left(update: int, updates: int, config: PpoConfig) -> float:
    """Of exploration, 1 .. 0."""
    return max(0.0, 1 - update / max(1.0, config.entropy_frac * updates))


def with_cost_share(task: Task, update: int, updates: int, config: PpoConfig) -> Task:
    """The task with its trading costs scaled from 0 up to 1 over the first cost_ramp_frac of the updates.

    At full cost from the start every random trade loses, and the policy learns to stay flat before it can read.
    """
    ramp = config.cost_ramp_frac * updates
    share = min(1.0, update / ramp) if ramp else 1.0
    costs = ("taker_fee_frac", "maker_fee_frac", "half_spread_frac", "impact_coef")
    rules = task.rules._replace(**{name: share * getattr(task.rules, name) for name in costs})
    return replace(task, rules=rules)
