"""A network at play: forecasts and accounts along the market, greedily for validation or sampled for training."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from btcai.agent.rollout import HeadWeights, Rollout, walk
from btcai.agent.task import Stretches, Task, clock_decisions, stretches_at
from btcai.market.reward import NET_PROFIT
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.schema import ACCOUNT_FEATURES, Action, BoolArray, Float32Array, FloatArray, IntArray, Span

ENCODE_CHUNK = 1024  # decision times encoded at once outside training: bounds memory
HOLD_BIASES = (0.0, -0.5, -1.0, -1.5, -2.0, -2.5)  # trade at probabilities above .5, .38, .27, .18, .12, .08
PHASES = 4  # of the patch at which validation plays
LOTS = ACCOUNT_FEATURES.index("lots_frac")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Greedy play on the validation span from a flat account, mean over phases of the patch.

    score: sum of rewards; net_profit: its first term, the log return of equity after costs where profits compound;
    exposure_frac: share of lots open; orders: decisions that were not HOLD.
    """

    score: float
    net_profit: float
    exposure_frac: float
    orders: float


def validate(model: ActorCritic, task: Task) -> Validation:
    """Greedy play over the validation span, at up to PHASES phases of the patch."""
    return _mean([_summary(play(model, task, decisions)) for decisions in _validation_paths(task)])


def choose_hold_bias(model: ActorCritic, task: Task) -> tuple[Validation, float]:
    """The addition to HOLD's logit that validates best, and how it does; of equals the smallest change.

    A good policy may trade with a probability of a third at each decision until it has: sampled, that costs a few
    bars; its likeliest action is to wait for ever. What is traded is the likeliest action, so how likely a trade must
    be is a threshold, and like every threshold it is fitted on the validation span.
    """
    paths = [(decisions, _encode_path(model, task, decisions)) for decisions in _validation_paths(task)]
    found = []
    for bias in HOLD_BIASES:
        head = head_weights(model, bias)
        walks = [
            walk(task, decisions[None], projected, head, sizes, allowed, 1, None)
            for decisions, (projected, sizes, allowed) in paths
        ]
        found.append((_mean([_summary(rollout) for rollout in walks]), bias))
    return max(found, key=lambda item: item[0].score)


def _validation_paths(task: Task) -> list[IntArray]:
    """Decision bars of the validation span at evenly spread phases of the patch."""
    phases = np.linspace(0, task.patch_bars, min(PHASES, task.patch_bars), endpoint=False).astype(int)
    return [clock_decisions(task, task.valid, int(phase)) for phase in phases]


def _summary(rollout: Rollout) -> Validation:
    return Validation(
        score=float(rollout.reward.sum()),
        net_profit=float(rollout.terms[..., NET_PROFIT].sum()),
        exposure_frac=float(np.abs(rollout.observation[..., LOTS]).mean()),
        orders=float((rollout.action != Action.HOLD).sum()),
    )


def _mean(parts: list[Validation]) -> Validation:
    columns = zip(*(asdict(part).values() for part in parts), strict=True)
    return Validation(**dict(zip(asdict(parts[0]), (float(np.mean(column)) for column in columns), strict=True)))


@torch.no_grad()
def collect(
    model: ActorCritic, task: Task, stretches: Stretches, agents: int, rng: np.random.Generator | None
) -> Rollout:
    """Encode each decision time once, then walk `agents` accounts along every stretch with the head alone."""
    encoding = model.encode(torch.from_numpy(stretches.tokens), banded=stretches.bars.shape[1] % 128 == 0)
    if rng is not None:
        model.refresh_signal_scale(encoding)
    size_frac, allowed = _sizes(model, task, encoding, stretches.bars)
    projected = model.head.market(model.latent(encoding)).numpy()
    return walk(task, stretches.bars, projected, head_weights(model), size_frac, allowed, agents, rng)


def play(model: ActorCritic, task: Task, decision_bars: IntArray) -> Rollout:
    """One flat account, greedily, over consecutive decision bars (D,)."""
    projected, sizes, allowed = _encode_path(model, task, decision_bars)
    return walk(task, decision_bars[None], projected, head_weights(model), sizes, allowed, 1, None)


@torch.no_grad()
def _encode_path(model: ActorCritic, task: Task, decision_bars: IntArray) -> tuple[Float32Array, FloatArray, BoolArray]:
    """What a walk along decision bars (D,) reads: projected (1, D, hidden), size_frac and entry_allowed (1, D)."""
    projected, sizes, allowed = [], [], []
    for bars, encoding, _ in _encode_all(model, task, decision_bars, Span(0, len(task.features))):
        size_frac, entry_allowed = _sizes(model, task, encoding, bars)
        projected.append(model.head.market(model.latent(encoding)).numpy())
        sizes.append(size_frac)
        allowed.append(entry_allowed)
    return np.concatenate(projected, 1), np.concatenate(sizes, 1), np.concatenate(allowed, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecasts beside outcomes at D decision times, in units of sigma * sqrt(horizon).

    target, known, mean, std (D, H); quantiles (D, H, Q).
    """

    target: Float32Array
    known: BoolArray
    mean: Float32Array
    std: Float32Array
    quantiles: Float32Array


@torch.no_grad()
def forecasts(model: ActorCritic, task: Task, span: Span) -> Forecasts:
    """Forecasts at every decision time of the span at one phase, with the outcomes that lie inside the span."""
    parts = []
    for _, encoding, stretch in _encode_all(model, task, clock_decisions(task, span, 0), span):
        calibrated = (tensor[0].numpy() for tensor in model.calibrated(encoding))
        parts.append((stretch.target[0], stretch.known[0], *calibrated))
    target, known, mean, std, quantiles = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Forecasts(target=target, known=known, mean=mean, std=std, quantiles=quantiles)


def _encode_all(
    model: ActorCritic, task: Task, decision_bars: IntArray, span: Span
) -> Iterator[tuple[IntArray, Encoding, Stretches]]:
    """Encode consecutive decision bars (D,) in chunks of (1, M); targets are known inside `span` only."""
    for chunk in range(0, len(decision_bars), ENCODE_CHUNK):
        bars = decision_bars[None, chunk : chunk + ENCODE_CHUNK]
        stretch = stretches_at(task, span, bars)
        yield bars, model.encode(torch.from_numpy(stretch.tokens)), stretch


def head_weights(model: ActorCritic, hold_bias: float = 0.0) -> HeadWeights:
    """The head's account half as contiguous arrays, HOLD's logit raised by hold_bias."""
    head = model.head
    policy_bias = _array(head.policy.bias).copy()
    policy_bias[Action.HOLD] += hold_bias
    return HeadWeights(
        account=_array(head.account.weight.T),
        policy=_array(head.policy.weight.T),
        policy_bias=policy_bias,
        value=_array(head.value.weight[0]),
        value_bias=head.value.bias.item(),
    )


def _sizes(model: ActorCritic, task: Task, encoding: Encoding, bars: IntArray) -> tuple[FloatArray, BoolArray]:
    """Lot sizes and entry permissions (S, M) from the shortest horizon's forecast."""
    mean, std, _ = model.calibrated(encoding)
    sigma = task.bars.sigma[bars]
    unit = sigma * task.bucket.horizons_bars[0] ** 0.5
    flat = (mean[..., 0].numpy() * unit).ravel(), (std[..., 0].numpy() * unit).ravel(), sigma.ravel()
    size_frac, allowed = task.sizes(*flat)
    return size_frac.reshape(bars.shape), allowed.reshape(bars.shape)


def _array(weight: Tensor) -> Float32Array:
    return np.ascontiguousarray(weight.detach().numpy())
