"""The steady filter of drifts that only their sum's noisy returns reveal (Kalman 1960)."""

from dataclasses import dataclass

import numpy as np

from btcai.schema import FloatArray

_STEPS, _TOLERANCE = 100_000, 1e-13


@dataclass(frozen=True, kw_only=True, eq=False)
class SteadyFilter:
    """Of K drifts: gain (K,); error_covariance (K, K) of the drifts that move the next return around their estimates;
    innovation_covariance (K, K) of the estimates' own steps. Estimates are AR(1) with the drifts' coefficients."""

    gain: FloatArray
    error_covariance: FloatArray
    innovation_covariance: FloatArray


def steady_filter(phi: FloatArray, spread: FloatArray, noise_sd: float) -> SteadyFilter:
    """phi and stationary spread (K,) of independent AR(1) drifts, returns = their sum + noise -> the filter in the long
    run, by iterating the Riccati equation from the stationary law; units of spread and noise_sd.

    ArithmeticError when the iteration does not settle.
    """
    stationary = np.diag(spread**2)
    decay = np.multiply.outer(phi, phi)
    fresh = np.diag(spread**2 * (1 - phi**2))
    covariance = stationary
    for _ in range(_STEPS):
        to_sum = covariance.sum(1)
        surprise = float(to_sum.sum()) + noise_sd**2
        updated = decay * (covariance - np.multiply.outer(to_sum, to_sum) / surprise) + fresh
        change = float(np.abs(updated - covariance).max())
        covariance = updated
        if change <= _TOLERANCE * stationary.max():
            break
    else:
        raise ArithmeticError(f"the Riccati equation must settle within {_STEPS} steps, still moves by {change:.2g}")
    to_sum = covariance.sum(1)
    surprise = float(to_sum.sum()) + noise_sd**2
    step = phi * to_sum
    return SteadyFilter(
        gain=to_sum / surprise,
        error_covariance=covariance,
        innovation_covariance=np.multiply.outer(step, step) / surprise,
    )
