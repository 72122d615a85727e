"""Exact nearest neighbours among whitened latents, apart in time.

A product of matrices a block of queries at a time. Latents have dozens of dimensions, where trees look at nearly all
points, and an approximate index would add an error and a dependency to save a fraction of a second.
"""

from collections.abc import Iterator

import numpy as np

from btcai.compiled import compiled
from btcai.schema import Float32Array, FloatArray, IntArray

SHRINKAGE = 0.1
"""Of the covariance towards a sphere: directions in which latents hardly moved are not to be everything."""

_CANDIDATES = 8  # times k nearest, among which those apart in time are looked for
_CHUNK = 256  # queries at a time: bounds memory


def whitening(latents: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Latents (R, Z) -> centre (Z,), and (Z, Z) that makes their shrunk covariance the identity."""
    size, axes = np.linalg.eigh(np.atleast_2d(np.cov(latents.T, dtype=np.float64)))
    size = (1.0 - SHRINKAGE) * np.maximum(size, 0.0) + SHRINKAGE * size.mean()
    centre = latents.mean(axis=0, dtype=np.float64)
    return centre.astype(np.float32), (axes / np.sqrt(np.where(size > 0.0, size, 1.0))).astype(np.float32)


def squared_distances(queries: Float32Array, places: Float32Array) -> Float32Array:
    """(B, Z), (N, Z) -> (B, N)."""
    products: Float32Array = queries @ places.T
    products *= -2.0
    products += np.square(places).sum(1)
    products += np.square(queries).sum(1)[:, None]
    np.maximum(products, 0.0, out=products)
    return products


def closest_apart(
    squared: Float32Array, close_ts_ns: IntArray, k: int, apart_ns: int, within: float = np.inf
) -> tuple[IntArray, FloatArray]:
    """Squared distances (B, N), inf for what does not count, and times (N,) -> the nearest k at least apart_ns apart.

    Columns and squared distances (B, k) up to `within`, nearest first, -1 and inf where there are no more. Of
    neighbours closer in time only the nearest is taken. They are looked for among the _CANDIDATES * k nearest.
    """
    rows, found = np.full((len(squared), k), -1, np.int64), np.full((len(squared), k), np.inf)
    n_candidates = min(squared.shape[1], _CANDIDATES * k)
    if n_candidates:
        candidates = np.argpartition(squared, n_candidates - 1, axis=1)[:, :n_candidates]
        candidates.sort(axis=1)  # of equals the earliest
        distances = np.take_along_axis(squared, candidates, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        _take_apart(candidates, distances, order, close_ts_ns, apart_ns, within, rows, found)
    return rows, found


@compiled
def _take_apart(
    candidates: IntArray,
    distances: Float32Array,
    order: IntArray,
    close_ts_ns: IntArray,
    apart_ns: int,
    within: float,
    rows: IntArray,
    found: FloatArray,
) -> None:
    """Write into rows and found (B, k) the first candidates (B, C), in their order (B, C), that are apart in time."""
    k = rows.shape[1]
    for query in range(len(order)):
        taken = 0
        for place in order[query]:
            if taken == k or not distances[query, place] <= within or np.isinf(distances[query, place]):
                break
            candidate = candidates[query, place]
            free = True
            for other in rows[query, :taken]:
                free = free and abs(close_ts_ns[other] - close_ts_ns[candidate]) >= apart_ns
            if free:
                rows[query, taken], found[query, taken] = candidate, distances[query, place]
                taken += 1


def chunks(n: int) -> Iterator[slice]:
    """0 .. n - 1 in order, _CHUNK at a time."""
    return (slice(first, min(n, first + _CHUNK)) for first in range(0, n, _CHUNK))
