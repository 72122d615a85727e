"""How much each feature matters to a trained network, by three measures that answer three questions.

Gates: what enters the network. Permutation (Breiman 2001, section 10; Fisher, Rudin, Dominici 2019, arXiv 1801.01489):
what its forecasts lose without. Integrated gradients (Sundararajan, Taly, Yan 2017, arXiv 1703.01365, eq. 1): what
moves them. The second asks the market, the others ask the network alone.
"""

import csv
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from btcai.agent.shards import SHARDS, Shards, shards
from btcai.agent.task import Stretches, Task, spread_bars, stretches_at
from btcai.errors import DataError
from btcai.features.scaling import CLIP
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.schema import Float32Array, FloatArray, IntArray, Span
from btcai.training.pretraining import prediction_loss

logger = logging.getLogger(__name__)

STRETCHES, DECISIONS = 32, 128
"""Stretches whose columns change places, and the decision times of each that are forecast."""
REPEATS = 2
"""Ways in which they do."""
LEAST_BLOCKS = 4
"""Of time, over which a cost's standard error is taken."""
WINDOWS, STEPS = 64, 16
"""Decision times whose forecasts are taken apart, and points of the path to each (Gauss and Legendre's)."""
WINDOWS_AT_ONCE = 8
ROWS = 20_000
"""Of the span, evenly spread, on which features are held against each other."""


def feature_importance(
    model: ActorCritic, task: Task, span: Span, feature_names: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """A row per feature: feature, gates, permutation, permutation_error, integrated_gradients, twin, twin_correlation.

    gates: share of the selection, 1 in all. permutation: by how much the prediction loss on the span rises, and its
    standard error. integrated_gradients: mean size of what the feature adds to the shortest horizon's mean forecast, in
    units of sigma * sqrt(horizon). twin: the other feature most correlated with it on the span. DataError where the
    span is shorter than one lookback and one stretch.
    """
    with shards() as workers:
        cost, error = permutation_cost(model, task, span, np.random.default_rng(seed), workers)
        tokens = stretches_at(task, span, spread_bars(task, span, WINDOWS, 1)).tokens
        parts = [torch.from_numpy(part) for part in np.split(tokens, WINDOWS // WINDOWS_AT_ONCE)]
        moved = torch.cat(workers.map(partial(integrated_gradients, model), parts))
    twin, correlation = twins(task.features[span.first : span.stop])
    return pd.DataFrame(
        {
            "feature": list(feature_names),
            "gates": model.stem.importance().detach().double().numpy(),
            "permutation": cost,
            "permutation_error": error,
            "integrated_gradients": moved.abs().mean(0).double().numpy(),
            "twin": [feature_names[other] for other in twin],
            "twin_correlation": correlation,
        }
    )


def permutation_cost(
    model: ActorCritic, task: Task, span: Span, rng: np.random.Generator, workers: Shards
) -> tuple[FloatArray, FloatArray]:
    """By how much the prediction loss on the span rises when a feature's column comes from another stretch of it:
    mean and standard error (F,).

    A stretch with its lookback is one block of time, whose column moves as a whole: what the feature says from bar to
    bar stays as it was, what it has to do with the other features and with what follows does not. Bars that either
    stretch misses stay as they are, and so does the mask. The error is taken over blocks of the span that hardly share
    an outcome; of a span too short for LEAST_BLOCKS of them it is too small.
    """
    batch = stretches_at(task, span, spread_bars(task, span, STRETCHES, DECISIONS))
    orders = [_elsewhere(STRETCHES, rng) for _ in range(REPEATS)]
    rows = np.split(np.arange(STRETCHES), SHARDS)
    losses = np.concatenate(workers.map(partial(_shuffled_losses, model, task, batch, orders), rows), axis=1)
    rise = losses[1:] - losses[0]  # (F, S)
    reach = DECISIONS * task.patch_bars + max(task.bucket.horizons_bars)
    blocks = min(STRETCHES, max(LEAST_BLOCKS, len(span) // reach))
    means = np.stack([part.mean(1) for part in np.array_split(rise, blocks, axis=1)])
    return rise.mean(1), means.std(0, ddof=1) / blocks**0.5


def _elsewhere(n: int, rng: np.random.Generator) -> IntArray:
    """A random cyclic permutation (n,): none stays where it is (Sattolo 1986)."""
    order = rng.permutation(n)
    moved = np.empty(n, np.int64)
    moved[order] = np.roll(order, 1)
    return moved


@torch.no_grad()
def _shuffled_losses(
    model: ActorCritic, task: Task, batch: Stretches, orders: list[IntArray], rows: IntArray
) -> FloatArray:
    """Losses of each of some stretches (1 + F, S): as they are, then with one feature after the other from elsewhere,
    mean over the orders."""
    tokens, part = batch.tokens, batch.part(rows)
    work: Float32Array = part.tokens.copy()
    losses = [_losses(model, task, work, part)]
    for feature in range(work.shape[-1]):
        own, found = part.tokens[..., feature], []
        for order in orders:
            given = order[rows]
            work[..., feature] = np.where(tokens[given, ..., -1] == 1.0, tokens[given, ..., feature], own)
            found.append(_losses(model, task, work, part))
        work[..., feature] = own
        losses.append(np.mean(found, axis=0))
    return np.stack(losses)


def _losses(model: ActorCritic, task: Task, tokens: Float32Array, part: Stretches) -> FloatArray:
    """Of each stretch."""
    encoding = model.read(tokens, banded=True).cpu()
    return np.array(
        [float(prediction_loss(task, _only(encoding, s), part.part(np.array([s])))) for s in range(len(tokens))]
    )


def _only(encoding: Encoding, s: int) -> Encoding:
    return Encoding(**{name: tensor[s : s + 1] for name, tensor in vars(encoding).items()})


def integrated_gradients(model: ActorCritic, tokens: Tensor, steps: int = STEPS) -> Tensor:
    """What each feature adds to the shortest horizon's mean forecast of windows (W, 144, P, F): (W, F).

    Against a window whose features all stand at the scaler's mean, along the straight line between: gradients at points
    of the line, times the way, summed over the window's bars. The parts of one window add up to the difference between
    the two forecasts (completeness) as nearly as `steps` points tell an integral. Features count as the network clips
    them; the mask is no way to go, so that its part is 0.
    """
    mean, std = model.stem.feature_mean, model.stem.feature_std
    inside = CLIP * (1.0 - 1e-6)  # at the very edge rounding decides whether there is a gradient
    read = mean + std * ((tokens - mean) / std).clamp(-inside, inside)
    way = read - mean
    way[..., -1] = 0.0
    start = torch.where(torch.arange(tokens.shape[-1]) == tokens.shape[-1] - 1, tokens, mean)
    total = torch.zeros_like(way)
    points, weights = np.polynomial.legendre.leggauss(steps)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        at = (start + (point + 1.0) / 2.0 * way).requires_grad_()
        (gradient,) = torch.autograd.grad(shortest_mean(model, at).sum(), at)
        total += weight / 2.0 * gradient
    return (total * way).sum((1, 2))


def shortest_mean(model: ActorCritic, tokens: Tensor) -> Tensor:
    """The mean forecast (W,) over the bucket's shortest horizon, in units of sigma * sqrt(horizon), before its
    temperature: that scales all of them alike, and may be infinite."""
    return model.encode(tokens).location[:, -1, 1]


def twins(features: Float32Array) -> tuple[IntArray, FloatArray]:
    """Of every feature (F,): the other one most correlated with it on present rows of (T, F), mask last, and how much.

    A constant feature has a correlation of 0 with all.
    """
    rows = features[:: max(1, len(features) // ROWS)]
    rows = rows[rows[:, -1] == 1.0].astype(np.float64)
    centred = rows - rows.mean(0)
    size = np.sqrt((centred**2).sum(0))
    scaled = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0.0)
    correlation = scaled.T @ scaled
    np.fill_diagonal(correlation, 0.0)
    twin = np.abs(correlation).argmax(1)
    return twin, correlation[np.arange(len(twin)), twin]


def write_importance(out: Path, model: ActorCritic, task: Task, names: tuple[str, ...], seed: int) -> None:
    """importance.csv with two more measures, on the validation span; of a span too short for them the gates alone."""
    try:
        found = feature_importance(model, task, task.valid, names, seed)
    except DataError as error:
        logger.warning("feature importance by the gates alone: %s", error)
        write_gates(out, model, names)
        return
    renamed = found.rename(columns={"gates": "importance"})
    renamed.to_csv(out / "importance.csv", index=False, float_format="%.6g", lineterminator="\n")


@torch.no_grad()
def write_gates(out: Path, model: ActorCritic, names: tuple[str, ...]) -> None:
    """importance.csv: the share of its selection that the network gives each feature, 1 in all."""
    shares = model.stem.importance().double().tolist()
    with (out / "importance.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["feature", "importance"])
        writer.writerows((name, f"{share:.6g}") for name, share in zip(names, shares, strict=True))
