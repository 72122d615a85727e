"""What followed situations like this one: latents of key decisions and their outcomes, searched exactly.

Distance is Euclidean between latents whitened by the training span's covariance, the same for all of a memory's life,
so that what comes later moves no earlier distance. Recall looks at nothing whose outcome was not known at `now`.
Neighbours closer in time than the horizon share their outcome: only the nearest of such speaks. What is remembered and
what is forgotten: remembering.py. Shapes: N situations remembered, D queries, Z latent, K neighbours.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from btcai.errors import ArtifactError
from btcai.reasoning.nearest import chunks, closest_apart, squared_distances, whitening
from btcai.reasoning.records import Recalled
from btcai.schema import BAR_NS, Float32Array, FloatArray, IntArray

CAPACITY = 5_000
NEIGHBOURS = 32
PRIOR_OUTCOMES = 32.0
"""Outcomes, half of them rises, that are added to those recalled: without any the lean is 0, with as many it is half
of what they say. Tosses of a coin, NEIGHBOURS of them, lean further than .18 one time in twenty."""
FAMILIAR_FRAC = 0.9
"""Share of the training span's situations that find NEIGHBOURS others, apart in time, within the threshold."""
UNUSUAL_FRAC = 0.95
"""Quantile of the training span's distances from their centre, above which a situation is unusual."""
LEAST_CAPACITY = 10

_CALIBRATED_ON = 2_000
_LEAST_NEAR = 1e-6  # latents that are all the same are near each other
_NEVER_NS = np.iinfo(np.int64).min


@dataclass(frozen=True, kw_only=True, eq=False)
class Situations:
    """N decisions and what came of them.

    close_ts_ns (N,): when it was decided; known_ts_ns (N,): when the outcome was known; embedding (N, Z) float32: the
    policy's latent; outcome (N,): log return over the horizon in units of sigma * sqrt(horizon), nan where unknown.
    """

    close_ts_ns: IntArray
    known_ts_ns: IntArray
    embedding: Float32Array
    outcome: FloatArray

    def __len__(self) -> int:
        return len(self.close_ts_ns)

    def __getitem__(self, rows: Any) -> "Situations":
        return Situations(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Up to `capacity` situations by the time their outcome was known, and how distance is measured; nothing mutates.

    Rows, (N,) but for place (N, Z), the whitened latent. A row may speak for several situations: outcome and rise are
    their mean outcome and share of rises, weight how many of them are apart in time.
    """

    model_version: str
    horizon_bars: int
    capacity: int
    centre: Float32Array
    whitening: Float32Array
    near: float
    """Distance up to which a situation is like another."""
    unusual: float
    """Distance from the centre above which a situation is like few."""
    forgot_ts_ns: int
    """When outcomes last decided what to forget: nothing before can be recalled without looking ahead."""
    close_ts_ns: IntArray
    known_ts_ns: IntArray
    place: Float32Array
    outcome: FloatArray
    rise: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.close_ts_ns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recollection:
    """What a memory says of D situations; nan where it knows nothing like them.

    rows (D, K): the memory's rows, nearest first, -1 where there are no more; distance (D, K): to them, inf where there
    are no more; mean_outcome, rise_frac (D,): of what is recalled; outcomes (D,): how many, apart in time; lean (D,):
    -1 .. 1, above 0 where prices rose more often than not, shrunk towards 0 by PRIOR_OUTCOMES.
    """

    rows: IntArray
    distance: FloatArray
    mean_outcome: FloatArray
    rise_frac: FloatArray
    outcomes: FloatArray
    lean: FloatArray

    @property
    def confidence(self) -> FloatArray:
        """(D,): how sure the memory is of a direction, 0 .. 1."""
        return np.abs(self.lean)


def new_memory(
    usual: Float32Array, close_ts_ns: IntArray, *, model_version: str, horizon_bars: int, capacity: int = CAPACITY
) -> Memory:
    """An empty memory that measures by the latents `usual` (R, Z) of the training span's decisions at close_ts_ns (R,).

    ValueError for latents that are not finite or fewer than 2, and for a capacity below LEAST_CAPACITY.
    """
    if len(usual) < 2 or not np.isfinite(usual).all():
        raise ValueError(f"a memory measures by at least 2 finite latents, was {len(usual)}; pass the training span's")
    if capacity < LEAST_CAPACITY:
        raise ValueError(f"a memory must hold at least {LEAST_CAPACITY} situations, was {capacity}")
    centre, root = whitening(usual)
    held = _spread(len(usual), capacity)
    place = np.asarray((usual[held] - centre) @ root, np.float32)
    return Memory(
        model_version=model_version,
        horizon_bars=horizon_bars,
        capacity=capacity,
        centre=centre,
        whitening=root,
        near=max(_LEAST_NEAR, _familiar_distance(place, close_ts_ns[held], horizon_bars * BAR_NS)),
        unusual=float(np.quantile(np.linalg.norm(place, axis=1), UNUSUAL_FRAC)),
        forgot_ts_ns=_NEVER_NS,
        close_ts_ns=np.empty(0, np.int64),
        known_ts_ns=np.empty(0, np.int64),
        place=np.empty((0, len(centre)), np.float32),
        outcome=np.empty(0),
        rise=np.empty(0),
        weight=np.empty(0),
    )


def _familiar_distance(place: Float32Array, close_ts_ns: IntArray, apart_ns: int) -> float:
    """The threshold: within it FAMILIAR_FRAC of an even sample find NEIGHBOURS others.

    At least a horizon from itself and from each other, among as many as the memory will hold.
    """
    furthest = []
    sample = _spread(len(place), _CALIBRATED_ON)
    for part in chunks(len(sample)):
        squared = squared_distances(place[sample[part]], place)
        squared[np.abs(close_ts_ns[sample[part], None] - close_ts_ns) < apart_ns] = np.inf
        _, found = closest_apart(squared, close_ts_ns, NEIGHBOURS, apart_ns)
        furthest.append(np.where(np.isfinite(found), found, 0.0).max(axis=1))
    return float(np.sqrt(np.quantile(np.concatenate(furthest), FAMILIAR_FRAC)))


def _spread(n: int, at_most: int) -> IntArray:
    """At most so many of 0 .. n - 1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.int64))


def placed(memory: Memory, embedding: Float32Array) -> Float32Array:
    """Latents (D, Z), whitened."""
    if embedding.shape[1:] != memory.centre.shape:
        raise ValueError(f"latents must have {len(memory.centre)} numbers as the memory's, was {embedding.shape[1:]}")
    return np.asarray((embedding - memory.centre) @ memory.whitening, np.float32)


def recall(
    memory: Memory, embedding: Float32Array, now_ts_ns: IntArray, *, model_version: str, k: int = NEIGHBOURS
) -> Recollection:
    """The K situations most like each of latents (D, Z), with what was known at now_ts_ns (D,) alone.

    They are at least a horizon apart in time and within memory.near. ArtifactError for another model's latents,
    ValueError for a time before the memory last forgot.
    """
    if model_version != memory.model_version:
        raise ArtifactError(
            f"a memory holds latents of one model, here of {memory.model_version}, and was asked about those of "
            f"{model_version}; make that model's memory with: btcai run"
        )
    if len(now_ts_ns) and (earliest := int(now_ts_ns.min())) < memory.forgot_ts_ns:
        raise ValueError(
            f"outcomes known at {memory.forgot_ts_ns} decided what this memory forgot, recall at {earliest} would look "
            "ahead; recall in order of time: recall_in_order"
        )
    known = np.searchsorted(memory.known_ts_ns, now_ts_ns, side="right")
    seen = slice(0, int(known.max(initial=0)))
    rows, squared = np.full((len(embedding), k), -1, np.int64), np.full((len(embedding), k), np.inf)
    places = placed(memory, embedding)
    for part in chunks(len(embedding)):
        distances = squared_distances(places[part], memory.place[seen])
        distances[np.arange(distances.shape[1]) >= known[part][:, None]] = np.inf
        apart_ns = memory.horizon_bars * BAR_NS
        rows[part], squared[part] = closest_apart(distances, memory.close_ts_ns[seen], k, apart_ns, memory.near**2)
    return _recollection(memory, rows, np.sqrt(squared))


def _recollection(memory: Memory, rows: IntArray, distance: FloatArray) -> Recollection:
    weight, outcome, rise = (np.append(values, 0.0)[rows] for values in (memory.weight, memory.outcome, memory.rise))
    outcomes = weight.sum(axis=1)

    def mean(values: FloatArray) -> FloatArray:
        unknown = np.full(len(rows), np.nan)
        return np.asarray(np.divide((weight * values).sum(axis=1), outcomes, out=unknown, where=outcomes > 0.0))

    rise_frac = mean(rise)
    return Recollection(
        rows=rows,
        distance=distance,
        mean_outcome=mean(outcome),
        rise_frac=rise_frac,
        outcomes=outcomes,
        lean=np.nan_to_num((2.0 * rise_frac - 1.0) * outcomes) / (outcomes + PRIOR_OUTCOMES),
    )


def adjusted_chance(chance: float, lean: float) -> float:
    """Chance of a rise, 0 .. 1, adjusted by what happened then: a lean -1 .. 1 takes away its share of the way to 0 or
    to 1; no memory changes nothing."""
    return chance + lean * (1.0 - chance) if lean > 0.0 else chance * (1.0 + lean)


def told(memory: Memory, recollection: Recollection, d: int, sigma: float, n_nearest: int = 5) -> Recalled:
    """Recollection d as a record of the chain; sigma of one bar turns outcomes into log returns of today's size."""
    unit = sigma * float(np.sqrt(memory.horizon_bars))
    near = recollection.rows[d] >= 0
    rows, distances = recollection.rows[d][near][:n_nearest], recollection.distance[d][near][:n_nearest]
    return Recalled(
        n=round(float(recollection.outcomes[d])),
        mean_outcome=unit * float(recollection.mean_outcome[d]),
        hit_rate=float(recollection.rise_frac[d]),
        confidence=float(recollection.confidence[d]),
        nearest=tuple(
            (int(memory.close_ts_ns[row]), float(distance), unit * float(memory.outcome[row]))
            for row, distance in zip(rows, distances, strict=True)
        ),
    )
