"""Are the newest bars like those of the training span? Each feature's distribution, and how volatile the market is.

Neighbouring bars are alike, so that any month differs from three years by more than tables of significance allow for.
What is usual is therefore measured: every window of the training span, as long as the newest one, is held against the
rest of the span in the same way, and the newest is judged by where it stands among them (a permutation test on blocks).
No label, no policy and no return but its size is read.
"""

from dataclasses import dataclass

import numpy as np

from btcai.errors import DataError
from btcai.features.table import FEATURES
from btcai.schema import BARS_PER_YEAR, BoolArray, Float32Array, FloatArray, Span

BINS = 10
"""Of the population stability index: deciles of the reference (Siddiqi 2006, Credit Risk Scorecards)."""

LEAST_FRAC = 1e-4
"""Of rows in a bin, so that an empty one does not make the index infinite."""

REFERENCE_ROWS = 10_000
"""Spread evenly over the reference: more change no figure that is shown."""

LEAST_WINDOWS = 4

CLOCK = frozenset(feature.name for feature in FEATURES if feature.family == "calendar")
"""Features that are the time of day or week: they move with the calendar and not with the market."""


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One feature's newest window against the training span, beside the windows of the span itself.

    psi: population stability index; ks: Kolmogorov-Smirnov distance, 0 .. 1; usual_ks, largest_ks: of the windows.
    """

    name: str
    psi: float
    ks: float
    usual_ks: float
    largest_ks: float

    @property
    def is_unusual(self) -> bool:
        """Further off than every window of the training span."""
        return self.ks > self.largest_ks


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The newest window as a whole; score: mean KS over features; volatility: annual, of log returns between bars."""

    window: Span
    features: tuple[FeatureDrift, ...]
    score: float
    window_scores: tuple[float, ...]
    volatility: float
    window_volatilities: tuple[float, ...]

    @property
    def chance(self) -> float:
        """Of a score as large, were the newest window like the others: (1 + larger ones) / (1 + windows)."""
        larger = sum(score >= self.score for score in self.window_scores)
        return (1 + larger) / (1 + len(self.window_scores))

    @property
    def psi(self) -> float:
        """Mean population stability index over features."""
        return float(np.mean([found.psi for found in self.features]))


def measure_drift(features: Float32Array, names: tuple[str, ...], mark: FloatArray, train: Span, n_bars: int) -> Drift:
    """The last n_bars rows of features (T, F), mask last, and mark (T,) against the rows of `train`.

    Features of the clock are left out, and rows of missing bars. DataError where the training span holds fewer than
    LEAST_WINDOWS windows with bars, or the newest window no two in a row.
    """
    window = Span(len(features) - n_bars, len(features))
    n_windows = len(train) // n_bars if n_bars else 0
    if n_windows < LEAST_WINDOWS or window.first < train.stop:
        raise DataError(
            f"drift needs {LEAST_WINDOWS} windows of {n_bars:,} bars in the training span and one after it, was "
            f"{len(train):,} of {len(features):,} bars; lower drift.window_days in params.yaml"
        )
    windows = [Span(train.first + k * n_bars, train.first + (k + 1) * n_bars) for k in range(n_windows)]
    present = features[:, -1] > 0.5
    windows = [part for part in windows if np.isfinite(_volatility(mark, present, part))]
    if len(windows) < LEAST_WINDOWS or not np.isfinite(_volatility(mark, present, window)):
        raise DataError(
            f"the newest window and {LEAST_WINDOWS} of the training span must hold bars, {len(windows)} of the span "
            "do; raise drift.window_days in params.yaml"
        )
    columns = [column for column, name in enumerate(names[:-1]) if name not in CLOCK]
    features, names = features[:, columns], tuple(names[column] for column in columns)
    whole = _sample(features, present, [train])
    newest = _sample(features, present, [window])
    of_windows = np.array(
        [
            _distances(
                _sample(features, present, [Span(train.first, part.first), Span(part.stop, train.stop)]),
                _sample(features, present, [part]),
            )
            for part in windows
        ]
    )
    distances = _distances(whole, newest)
    found = tuple(
        FeatureDrift(
            name=name,
            psi=psi(whole[:, column], newest[:, column]),
            ks=float(distances[column]),
            usual_ks=float(np.median(of_windows[:, column])),
            largest_ks=float(of_windows[:, column].max()),
        )
        for column, name in enumerate(names)
    )
    return Drift(
        window=window,
        features=found,
        score=float(distances.mean()),
        window_scores=tuple(of_windows.mean(axis=1).tolist()),
        volatility=_volatility(mark, present, window),
        window_volatilities=tuple(_volatility(mark, present, part) for part in windows),
    )


def psi(reference: FloatArray, newest: FloatArray) -> float:
    """Population stability index of newest (m,) against reference (n,): sum of (q - p) ln(q / p) over its deciles.

    Values that repeat make deciles coincide; those are one bin.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (
        np.bincount(np.searchsorted(edges, rows, side="left"), minlength=len(edges) + 1) for rows in (reference, newest)
    )
    p, q = (np.maximum(counts / counts.sum(), LEAST_FRAC) for counts in (p, q))
    return float(((q - p) * np.log(q / p)).sum())


def ks(reference: FloatArray, newest: FloatArray) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest difference of their distribution functions."""
    reference, newest = np.sort(reference), np.sort(newest)
    at = np.concatenate([reference, newest])
    below = np.searchsorted(reference, at, side="right") / len(reference)
    return float(np.abs(below - np.searchsorted(newest, at, side="right") / len(newest)).max())


def _distances(reference: FloatArray, newest: FloatArray) -> FloatArray:
    """(F,) of the columns."""
    return np.array([ks(one, other) for one, other in zip(reference.T, newest.T, strict=True)])


def _sample(features: Float32Array, present: BoolArray, spans: list[Span]) -> FloatArray:
    """Rows of the bars that are there, REFERENCE_ROWS of them at most."""
    rows = np.concatenate([np.arange(span.first, span.stop) for span in spans])
    rows = rows[present[rows]]
    if len(rows) > REFERENCE_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, REFERENCE_ROWS).astype(np.int64)]
    return np.asarray(features[rows], dtype=np.float64)


def _volatility(mark: FloatArray, present: BoolArray, span: Span) -> float:
    """Annual, of log returns between bars that both are there."""
    part = slice(span.first, span.stop)
    there = present[part][1:] & present[part][:-1]
    returns = np.diff(np.log(mark[part]))[there]
    return float(np.sqrt((returns**2).mean() * BARS_PER_YEAR)) if len(returns) else float("nan")
