"""A network at play: forecasts and accounts along the market, greedily for validation or sampled for training."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from btcai.agent.head_weights import HeadWeights, head_weights
from btcai.agent.rollout import Rollout, joined, reward_sensitivity, walk, without_surprise
from btcai.agent.shards import SHARDS, Shards
from btcai.agent.task import Stretches, Task, clock_decisions, spread_bars, stretches_at
from btcai.market.reward import NET_PROFIT
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.models.trunk import BANDED
from btcai.schema import ACCOUNT_FEATURES, Action, BoolArray, Float32Array, FloatArray, IntArray, Span
from btcai.training.health import TrainingError, behaviour

ENCODE_CHUNK = 1024  # decision times encoded at once outside training: bounds memory
HOLD_BIASES = tuple(-0.5 * k for k in range(9))  # trade at probabilities above .5, .38, .27, ... .02
PHASES = 4  # of the patch at which validation plays
BLOCKS = 32  # of time, whose scores say how much chance there is in their sum
SCALED_ON = (128, 128)  # stretches of the training span, decisions of each
AT_ONCE = 8  # of these stretches
LOTS = ACCOUNT_FEATURES.index("lots_frac")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Greedy play on the validation span from a flat account, mean over phases of the patch.

    score: sum of rewards; net_profit: its first term, the log return of equity after costs where profits compound;
    lots_frac: share of lots open; orders: decisions that were not HOLD; the others as in health.behaviour.
    """

    score: float
    net_profit: float
    lots_frac: float
    orders: float
    share_hold: float
    share_buy: float
    share_sell: float
    share_close_all: float
    long_frac: float
    short_frac: float


def validate(model: ActorCritic, task: Task) -> Validation:
    """Greedy play over the validation span, at up to PHASES phases of the patch."""
    return _mean([_summary(play(model, task, decisions)) for decisions in _validation_paths(task)])


def standardise_signals(model: ActorCritic, task: Task, shards: Shards) -> None:
    """Standardise what the head reads of the forecasts by what they are along the training span."""
    n, decisions = SCALED_ON
    bars = np.split(spread_bars(task, task.train, n, decisions), n // AT_ONCE)
    model.refresh_signal_scale(shards.map(lambda rows: encode_chunk(model, task, rows, task.train)[0], bars))


def forecast_worth(model: ActorCritic, task: Task, shards: Shards) -> float:
    """What the forecast of the next decision's return is worth on the validation span: its slope, 0 .. 1.

    Of the regression of returns on forecasts, through zero. Rewards without surprises are paid by the forecast: by
    this share of it, or one that promises what it does not hold would pay for trades that earn nothing.
    """

    @torch.no_grad()
    def moments(bars: IntArray) -> tuple[float, float]:
        encoding, part = encode_chunk(model, task, bars, task.valid)
        said = np.where(part.known[..., 0], encoding.location[..., 0].numpy(), 0.0).astype(np.float64)
        return float((said * part.target[..., 0]).sum()), float((said**2).sum())

    chunks = [bars for decisions in _validation_paths(task) for bars in decision_chunks(decisions)]
    product, square = np.sum(shards.map(moments, chunks), 0)
    return float(np.clip(product / square, 0.0, 1.0)) if square > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPath:
    """What the market half says along D consecutive decisions, and what its forecast misses.

    bars (D,); latent (1, D, Z); size_frac, entry_allowed (1, D); surprise (D,), log returns.
    """

    bars: IntArray
    latent: Tensor
    size_frac: FloatArray
    entry_allowed: BoolArray
    surprise: FloatArray


def encode_validation(model: ActorCritic, task: Task, shards: Shards) -> list[EncodedPath]:
    """The validation span at up to PHASES phases of the patch, as this model's encoder reads it."""
    return [_encode_path(model, task, decisions, shards.map) for decisions in _validation_paths(task)]


def choose_hold_bias(
    model: ActorCritic, task: Task, paths: list[EncodedPath], surprises: list[FloatArray], share: float, shards: Shards
) -> tuple[Validation, FloatArray, float]:
    """The addition to HOLD's logit that validates best: how it validates, its score in BLOCKS of time, and itself.

    A good policy may trade with a probability of a third at each decision until it has: sampled, that costs a few
    bars; its likeliest action is to wait for ever. What is traded is the likeliest action, so how likely a trade must
    be is a threshold, and like every threshold it is fitted on the validation span: on its rewards without `share` of
    the surprises, since a realised score is mostly luck. These come from one forecast for all that is compared:
    judged by its own, the model that promises most would look best.
    """
    projected = [_project(model, path.latent) for path in paths]

    def judged(bias: float) -> tuple[Validation, FloatArray, float]:
        return *_played(model, task, paths, projected, surprises, share, bias), bias

    found = shards.map(judged, HOLD_BIASES)
    return max(found, key=lambda item: float(item[1].sum()))


def expected_scores(
    model: ActorCritic, task: Task, paths: list[EncodedPath], surprises: list[FloatArray], share: float
) -> tuple[Validation, FloatArray]:
    """How the policy as it is validates, and its score in BLOCKS of time, rewards without `share` of the surprises."""
    projected = [_project(model, path.latent) for path in paths]
    return _played(model, task, paths, projected, surprises, share, 0.0)


def _played(
    model: ActorCritic,
    task: Task,
    paths: list[EncodedPath],
    projected: list[Float32Array],
    surprises: list[FloatArray],
    share: float,
    hold_bias: float,
) -> tuple[Validation, FloatArray]:
    head = head_weights(model.head, hold_bias)
    walks = [_walk_path(task, path, market, head) for path, market in zip(paths, projected, strict=True)]
    parts = []
    for rollout, surprise in zip(walks, surprises, strict=True):
        exposure = reward_sensitivity(rollout, task.rules)
        cleaned, _ = without_surprise(rollout.reward, exposure, surprise[None, :-1], share)
        parts.append([block.sum() for block in np.array_split(cleaned[0, 0], BLOCKS)])
    return _mean([_summary(rollout) for rollout in walks]), np.mean(parts, 0)


def is_worse(parts: FloatArray, best: FloatArray) -> bool:
    """Whether scores by block are in sum below the best ones by more than the standard error of their difference."""
    difference = parts - best
    return bool(difference.sum() < -difference.std(ddof=1) * len(difference) ** 0.5)


def _validation_paths(task: Task) -> list[IntArray]:
    """Decision bars of the validation span at evenly spread phases of the patch."""
    phases = np.linspace(0, task.patch_bars, min(PHASES, task.patch_bars), endpoint=False).astype(int)
    return [clock_decisions(task, task.valid, int(phase)) for phase in phases]


def _summary(rollout: Rollout) -> Validation:
    return Validation(
        score=float(rollout.reward.sum()),
        net_profit=float(rollout.terms[..., NET_PROFIT].sum()),
        lots_frac=float(np.abs(rollout.observation[..., LOTS]).mean()),
        orders=float((rollout.action != Action.HOLD).sum()),
        **behaviour(rollout.action, rollout.observation[:, :, :-1, LOTS]),
    )


def _mean(parts: list[Validation]) -> Validation:
    columns = zip(*(asdict(part).values() for part in parts), strict=True)
    return Validation(**dict(zip(asdict(parts[0]), (float(np.mean(column)) for column in columns), strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """A rollout, what its head read of the market, latent (S, M, Z), and what no forecast knew of it meanwhile.

    surprise (S, M - 1): return to the next decision less its forecast, log returns.
    """

    rollout: Rollout
    latent: Tensor
    surprise: FloatArray


def collect(
    model: ActorCritic,
    task: Task,
    stretches: Stretches,
    agents: int,
    rng: np.random.Generator,
    shards: Shards,
    *,
    rescale: bool,
    temperature: float = 1.0,
) -> Played:
    """Encode each decision time once, then walk `agents` accounts along every stretch with the head alone.

    rescale: standardise what the head reads of the forecasts by these stretches first, as a changing encoder needs.
    temperature: of the policy that acts, which divides its logits.
    """
    parts = [stretches.part(rows) for rows in np.split(np.arange(len(stretches.bars)), SHARDS)]
    encodings = shards.map(partial(_encode, model), parts)
    if rescale:
        model.refresh_signal_scale(encodings)
    head = head_weights(model.head, temperature=temperature)

    def walked(part: Stretches, encoding: Encoding, stream: np.random.Generator) -> Played:
        latent = _latent(model, encoding)
        sizes = _sizes(model, task, encoding, part.bars)
        rollout = walk(task, part.bars, _project(model, latent), head, *sizes, agents, stream)
        return Played(rollout=rollout, latent=latent, surprise=_surprise(model, task, part, encoding)[:, :-1])

    played = shards.map(lambda one: walked(*one), zip(parts, encodings, rng.spawn(SHARDS), strict=True))
    return Played(
        rollout=joined([part.rollout for part in played]),
        latent=torch.cat([part.latent for part in played]),
        surprise=np.concatenate([part.surprise for part in played]),
    )


@torch.no_grad()
def _encode(model: ActorCritic, part: Stretches) -> Encoding:
    return model.read(part.tokens, banded=True).cpu()


@torch.no_grad()
def _latent(model: ActorCritic, encoding: Encoding) -> Tensor:
    return model.latent(encoding)


@torch.no_grad()
def _project(model: ActorCritic, latent: Tensor) -> Float32Array:
    """The head's market half at every decision time (S, M, hidden)."""
    return np.asarray(model.head.market(latent).numpy())


def _surprise(model: ActorCritic, task: Task, part: Stretches, encoding: Encoding) -> FloatArray:
    """Log return to the next decision less what its forecast is worth, (S, M); 0 where it is not known."""
    foreseen = float(model.forecast_worth) * encoding.location[..., 0].numpy()
    missed = np.where(part.known[..., 0], part.target[..., 0] - foreseen, 0.0)
    return np.asarray(missed * task.bars.sigma[part.bars] * task.patch_bars**0.5, np.float64)


def play(model: ActorCritic, task: Task, decision_bars: IntArray) -> Rollout:
    """One flat account, greedily, over consecutive decision bars (D,)."""
    path = _encode_path(model, task, decision_bars)
    return _walk_path(task, path, _project(model, path.latent), head_weights(model.head))


def _walk_path(task: Task, path: EncodedPath, projected: Float32Array, head: HeadWeights) -> Rollout:
    """TrainingError where a value is not finite: of probabilities that are nan the first action is taken, HOLD."""
    found = walk(task, path.bars[None], projected, head, path.size_frac, path.entry_allowed, 1, None)
    if unknown := np.count_nonzero(~np.isfinite(found.value)):
        raise TrainingError(
            f"what a network says must be finite, was not at {unknown} of {found.value.size} decisions; look at the "
            "bars with: btcai stage validate, or train it anew with: btcai run"
        )
    return found


def _encode_path(
    model: ActorCritic, task: Task, decision_bars: IntArray, each: Callable[..., Iterable[Any]] = map
) -> EncodedPath:
    """`each` is map, or one that works on several chunks at a time."""

    def read(bars: IntArray) -> tuple[Tensor, FloatArray, BoolArray, FloatArray]:
        encoding, part = encode_chunk(model, task, bars, Span(0, len(task.features)))
        sizes = _sizes(model, task, encoding, bars)
        return _latent(model, encoding), *sizes, _surprise(model, task, part, encoding)

    latent, sizes, allowed, surprise = zip(*each(read, decision_chunks(decision_bars)), strict=True)
    return EncodedPath(
        bars=decision_bars,
        latent=torch.cat(latent, 1),
        size_frac=np.concatenate(sizes, 1),
        entry_allowed=np.concatenate(allowed, 1),
        surprise=np.concatenate(surprise, 1)[0],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecasts beside outcomes at D decision times, in units of sigma * sqrt(horizon).

    target, known, mean, std (D, H); quantiles (D, H, Q); unfamiliarity (D,) of the market to the network.
    """

    target: Float32Array
    known: BoolArray
    mean: Float32Array
    std: Float32Array
    quantiles: Float32Array
    unfamiliarity: Float32Array


@torch.no_grad()
def forecasts(model: ActorCritic, task: Task, span: Span) -> Forecasts:
    """Forecasts at every decision time of the span at one phase, with the outcomes that lie inside the span."""
    parts = []
    for bars in decision_chunks(clock_decisions(task, span, 0)):
        encoding, stretch = encode_chunk(model, task, bars, span)
        said = (tensor[0].numpy() for tensor in (*model.calibrated(encoding), model.unfamiliarity(encoding)))
        parts.append((stretch.target[0, :, 1:], stretch.known[0, :, 1:], *said))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Forecasts(**dict(zip(Forecasts.__dataclass_fields__, columns, strict=True)))


def decision_chunks(decision_bars: IntArray) -> list[IntArray]:
    """Consecutive decision bars (D,) in pieces (1, M) that are encoded at once."""
    return [decision_bars[None, first : first + ENCODE_CHUNK] for first in range(0, len(decision_bars), ENCODE_CHUNK)]


@torch.no_grad()
def encode_chunk(model: ActorCritic, task: Task, bars: IntArray, span: Span) -> tuple[Encoding, Stretches]:
    """What the network says at decision bars (S, M), on the CPU, beside outcomes that are known inside `span`."""
    part = stretches_at(task, span, bars)
    return model.read(part.tokens, banded=bars.shape[1] % BANDED == 0).cpu(), part


def _sizes(model: ActorCritic, task: Task, encoding: Encoding, bars: IntArray) -> tuple[FloatArray, BoolArray]:
    """Lot sizes and entry permissions (S, M) from the shortest horizon's forecast."""
    mean, std, _ = model.calibrated(encoding)
    sigma = task.bars.sigma[bars]
    unit = sigma * task.bucket.horizons_bars[0] ** 0.5
    flat = mean[..., 0].numpy() * unit, std[..., 0].numpy() * unit, sigma, model.unfamiliarity(encoding).numpy()
    size_frac, allowed = task.sizes(*(values.ravel() for values in flat))
    return size_frac.reshape(bars.shape), allowed.reshape(bars.shape)
