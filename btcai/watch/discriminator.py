"""Can a classifier tell one market from another, and what by? The test that a simulated market has to pass.

Windows of features, each told by means, spreads and step sizes, to gradient-boosted trees (scikit-learn); judged on
stretches of time that the trees were not grown on, apart by more than a feature's memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from btcai.errors import DataError
from btcai.features.table import FEATURES, WARMUP_BARS
from btcai.schema import BoolArray, Float32Array, FloatArray, IntArray

FOLDS = 5
LEAST_WINDOWS = 10 * FOLDS

TOLD = tuple(
    (column, feature.name) for column, feature in enumerate(FEATURES) if feature.family not in ("calendar", "mask")
)
"""Columns and names of what is told: neither the clock nor what a market may lack."""

SUMMARIES = ("mean", "spread", "step")
"""Of a feature in a window: mean, standard deviation, mean absolute change from bar to bar."""


@dataclass(frozen=True, kw_only=True)
class Giveaway:
    """A feature that tells markets apart, and by how much all that was left then told: auc. Medians over windows of its
    summaries, in the order of SUMMARIES, in each market."""

    name: str
    auc: float
    first: tuple[float, ...]
    second: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Discrimination:
    """auc: that a window of the first market is held for likelier the first's than one of the second; .5 is chance.

    Giveaways in turn: each is what the trees leaned on most, and is left out from then on; left: the AUC without them.
    """

    auc: float
    windows: int
    giveaways: tuple[Giveaway, ...]
    left: float


def discriminate(
    first: Float32Array,
    second: Float32Array,
    window_bars: int,
    n_giveaways: int,
    seed: int,
    advance: Callable[[int], None] = lambda done: None,
) -> Discrimination:
    """Features (T, F) of two markets, a column for each of FEATURES, as many windows of each; `advance` hears how
    many of the n_giveaways + 1 rounds are done.

    DataError where a market has fewer than LEAST_WINDOWS windows of window_bars whole bars.
    """
    ours, theirs = windows_of(first, window_bars), windows_of(second, window_bars)
    n = min(len(ours), len(theirs))
    if n < LEAST_WINDOWS:
        raise DataError(
            f"telling markets apart needs {LEAST_WINDOWS} windows of {window_bars:,} bars without gaps of each, was "
            f"{len(ours):,} and {len(theirs):,}; take longer markets"
        )
    told = np.concatenate([ours[:n], theirs[:n]])
    is_first = np.repeat([True, False], n)
    place = np.tile(np.arange(n), 2)
    columns, found = list(range(len(TOLD))), list[Giveaway]()
    for round_ in range(n_giveaways + 1):
        auc, worth = _judge(told[:, columns], is_first, place, window_bars, seed, explained=round_ < n_giveaways)
        advance(round_ + 1)
        if round_ < n_giveaways:
            taken = columns.pop(int(np.argmax(worth)))
            one, two = (tuple(np.median(part[:, taken], axis=0).tolist()) for part in (ours[:n], theirs[:n]))
            found.append(Giveaway(name=TOLD[taken][1], auc=auc, first=one, second=two))
    return Discrimination(auc=found[0].auc if found else auc, windows=n, giveaways=tuple(found), left=auc)


def windows_of(features: Float32Array, window_bars: int) -> FloatArray:
    """(W, len(TOLD), len(SUMMARIES)) of the windows past the warm-up whose bars are all there."""
    n = max(0, len(features) - WARMUP_BARS) // window_bars
    cut = np.asarray(features[len(features) - n * window_bars :], dtype=np.float64)
    cut = cut.reshape(n, window_bars, features.shape[1])
    cut = cut[(cut[:, :, -1] > 0.5).all(axis=1)][:, :, [column for column, _ in TOLD]]
    steps = np.abs(np.diff(cut, axis=1)).mean(axis=1)
    return np.stack([cut.mean(axis=1), cut.std(axis=1), steps], axis=2)


def _judge(
    told: FloatArray, is_first: BoolArray, place: IntArray, window_bars: int, seed: int, *, explained: bool
) -> tuple[float, FloatArray]:
    """AUC over all windows (N, F, S), each judged by trees of the other folds, and what each feature was worth (F,):
    how much the log loss rises where its summaries are shuffled, a mean over folds. (The AUC barely falls near 1.)"""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng(seed)
    score, worth = np.empty(len(told)), np.zeros(told.shape[1])
    last = int(place.max()) + 1
    apart = -(-WARMUP_BARS // window_bars)
    for fold in range(FOLDS):
        begin, end = fold * last // FOLDS, (fold + 1) * last // FOLDS
        judged = (place >= begin) & (place < end)
        grown_on = (place < begin - apart) | (place >= end + apart)
        trees = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.15, max_leaf_nodes=8, random_state=seed)
        trees.fit(told[grown_on].reshape(grown_on.sum(), -1), is_first[grown_on])
        cases = told[judged]
        score[judged] = trees.decision_function(cases.reshape(len(cases), -1))
        if not explained:
            continue
        whole = log_loss(is_first[judged], trees.predict_proba(cases.reshape(len(cases), -1)))
        for feature in range(told.shape[1]):
            shuffled = cases.copy()
            shuffled[:, feature] = cases[rng.permutation(len(cases)), feature]
            then = trees.predict_proba(shuffled.reshape(len(cases), -1))
            worth[feature] += (log_loss(is_first[judged], then) - whole) / FOLDS
    return float(roc_auc_score(is_first, score)), worth
