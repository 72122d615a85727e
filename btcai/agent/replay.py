"""Prioritised stretches: training returns to the parts of its span that surprised it.

Prioritised Level Replay (Jiang et al. 2021, arXiv 2010.03934, sections 3.1 and 3.2) with parts of the training span for
levels: a part's score is the mean size of the advantages that its last visit had. Parts are drawn by one over their
rank (the paper's tenth power of that leaves all but the first a thousandth of the draws; its levels are drawn one after
the other, ours several at a time), mixed with how long ago they were seen and with uniform draws. In the losses rows
are weighted back to uniform (Schaul et al. 2016, arXiv 1511.05952, 3.4); running scales, of values and of the share of
surprises, see the draws as they are. A few hundred parts: a cumulated sum is drawn from, a sum tree would be slower.
"""

from dataclasses import dataclass

import numpy as np

from btcai.agent.task import Task, start_bars
from btcai.config import ReplayConfig
from btcai.schema import FloatArray, IntArray, Span


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Parts of a span, by their first and last start of a stretch, and what is known of them.

    first (N,), sizes (N,) bars; score (N,) as of their last visit, inf before it; seen (N,) update of the last visit.
    """

    first: IntArray
    sizes: IntArray
    score: FloatArray
    seen: FloatArray

    def as_facts(self) -> dict[str, list[float]]:
        """JSON values for a checkpoint."""
        return {"score": self.score.tolist(), "seen": self.seen.tolist()}

    def with_facts(self, facts: dict[str, list[float]]) -> "Parts":
        """What as_facts gave."""
        score, seen = np.array(facts["score"]), np.array(facts["seen"])
        return Parts(first=self.first, sizes=self.sizes, score=score, seen=seen)

    def visited(self, parts: IntArray, surprise: FloatArray, update: int) -> "Parts":
        """After stretches (n,) that began in these parts, with a mean size of the advantages (n,) each."""
        score, seen = self.score.copy(), self.seen.copy()
        score[parts] = 0.0
        np.maximum.at(score, parts, surprise)  # of a part drawn twice the greater
        seen[parts] = update
        return Parts(first=self.first, sizes=self.sizes, score=score, seen=seen)


def parts_of(task: Task, span: Span, decisions: int) -> Parts:
    """Equal parts, each as long as a stretch of so many decisions, together all the starts that there are."""
    first, last = start_bars(task, span, decisions)
    n = max(1, (last + 1 - first) // (decisions * task.patch_bars))
    edges = np.linspace(first, last + 1, n + 1).astype(np.int64)
    return Parts(first=edges[:-1], sizes=np.diff(edges), score=np.full(n, np.inf), seen=np.zeros(n))


def draw(
    parts: Parts, config: ReplayConfig, update: int, n: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray, FloatArray]:
    """Parts (n,), a start within each (n,), and what their rows count (n,): with correction 1 on average 1."""
    probability = _probability(parts, config, update)
    drawn = rng.choice(len(probability), n, p=probability)
    starts = parts.first[drawn] + (rng.random(n) * parts.sizes[drawn]).astype(np.int64)
    fair = parts.sizes / parts.sizes.sum()
    return drawn, starts, (fair[drawn] / probability[drawn]) ** config.correction


def _probability(parts: Parts, config: ReplayConfig, update: int) -> FloatArray:
    """(N,) of being drawn; those not seen yet share the first rank."""
    by_score = 1 / _ranks(parts.score)
    age = update - parts.seen
    by_age = age / age.sum() if age.sum() > 0 else np.full(len(age), 1 / len(age))
    prioritised = (1 - config.staleness) * by_score / by_score.sum() + config.staleness * by_age
    fair = parts.sizes / parts.sizes.sum()
    return np.asarray(config.prioritised * prioritised + (1 - config.prioritised) * fair)


def _ranks(score: FloatArray) -> FloatArray:
    """1 for the highest; equal ones share the best rank."""
    ordered = np.sort(score)
    return (len(score) - np.searchsorted(ordered, score, side="right") + 1).astype(np.float64)
