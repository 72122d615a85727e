"""What a trained network is fitted to on the validation span: static calibration, and what is far from the usual."""

import numpy as np
import torch

from btcai.agent.shards import shards
from btcai.agent.task import Task, spread_bars, start_bars
from btcai.calibration import coverage, fit_static
from btcai.models.actor_critic import ActorCritic
from btcai.schema import QUANTILE_LEVELS, Float32Array
from btcai.training.play import AT_ONCE, SCALED_ON, encode_chunk, forecasts

FAR_QUANTILE = 0.99
"""Of distances from the training span, on the validation span: the unit of unfamiliarity."""


@torch.no_grad()
def calibrate(model: ActorCritic, task: Task) -> dict[str, float]:
    """Fit the static calibration on the validation span and put it into the model, and what is familiar to it.

    Returns, per horizon, the coverage of the 90 % interval before it, and the information coefficient on that span.
    """
    model.quantile_offset.zero_()
    model.std_factor.fill_(1.0)
    model.temperature.fill_(1.0)
    _note_usual(model, task)
    seen = forecasts(model, task, task.valid)
    model.usual_far.fill_(max(1e-6, float(np.quantile(seen.unfamiliarity, FAR_QUANTILE))))
    before = coverage(seen.target, seen.known, seen.quantiles[..., 0], seen.quantiles[..., -1])
    overlap = np.maximum(1.0, np.asarray(task.bucket.horizons_bars) / task.patch_bars)
    levels = np.asarray(QUANTILE_LEVELS)
    fitted = fit_static(seen.target, seen.known, seen.mean, seen.std, seen.quantiles, levels, overlap)
    model.quantile_offset.copy_(torch.from_numpy(fitted.offset))
    model.std_factor.copy_(torch.from_numpy(fitted.std_factor))
    model.temperature.copy_(torch.from_numpy(fitted.temperature))
    metrics: dict[str, float] = {}
    for h in range(len(task.bucket.horizons_bars)):
        rows, name = seen.known[:, h], f"h{h + 1}"  # by place: the buckets' figures share their columns
        metrics[f"valid_outcomes_{name}"] = float(rows.sum() / overlap[h])  # that do not overlap
        metrics[f"valid_coverage_90_raw_{name}"] = float(before[h])
        metrics[f"valid_temperature_{name}"] = float(fitted.temperature[h])
        metrics[f"valid_ic_{name}"] = correlation(seen.mean[rows, h], seen.target[rows, h])
    return metrics


def correlation(forecast: Float32Array, outcome: Float32Array) -> float:
    """Pearson correlation of (n,) forecasts and outcomes; nan where either does not vary."""
    if len(forecast) < 3 or forecast.std() == 0 or outcome.std() == 0:
        return float("nan")
    return float(np.corrcoef(forecast, outcome)[0, 1])


def _note_usual(model: ActorCritic, task: Task) -> None:
    """Take what the trunk reads along the training span as what is usual (ActorCritic.unfamiliarity)."""
    n, decisions = SCALED_ON
    first, last = start_bars(task, task.train, 1)
    decisions = min(decisions, 1 + (last - first) // task.patch_bars)  # of a span too short for whole stretches
    bars = np.split(spread_bars(task, task.train, n, decisions), n // AT_ONCE)
    with shards() as workers:
        read = workers.map(lambda rows: encode_chunk(model, task, rows, task.train)[0].trunk.flatten(0, 1), bars)
    model.note_usual(torch.cat(read))
