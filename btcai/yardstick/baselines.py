"""Baselines beside a learner: paths -> positions (N, T), 0 or 1. What is tuned is tuned on realised training returns
alone, as anyone could; the true drift pays them, and they never see it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.loops import hysteresis, hysteresis_profits
from btcai.yardstick.paths import Paths

Baseline = Callable[[Paths], FloatArray]

LAGS = 144
_FAST, _SLOW = (1, 2, 4, 8, 16, 32), (8, 16, 32, 64, 128, 256)
_BANDS_SDS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, math.inf)
_THRESHOLDS_SDS = (*np.linspace(-2.5, 2.5, 21).tolist(), math.inf)


def cash(paths: Paths) -> FloatArray:
    """Never in the market."""
    return np.zeros_like(paths.expected)


def always_long(paths: Paths) -> FloatArray:
    """Bought at the first decision and held."""
    return np.ones_like(paths.expected)


@dataclass(frozen=True, kw_only=True)
class MovingAverageBaseline:
    """Long from when the fast mean of the (log) price is `band` above the slow one until it is as far below."""

    fast: int
    slow: int
    band: float

    def __call__(self, paths: Paths) -> FloatArray:
        return hysteresis(_gap(paths.returns, self.fast, self.slow), self.band, -self.band)


def tuned_moving_average(train: Paths, cost_bps: float) -> MovingAverageBaseline:
    """The windows, in decisions, and the band that earned most on training paths; an endless band stays in cash."""
    returns, cost_frac = train.returns, cost_bps / 1e4
    tried: list[tuple[float, MovingAverageBaseline]] = []
    for fast, slow in product(_FAST, _SLOW):
        if fast < slow:
            gap = _gap(returns, fast, slow)
            bands = gap.std() * np.array(_BANDS_SDS)
            profits = hysteresis_profits(gap, returns, bands, -bands, cost_frac)
            best = int(profits.argmax())
            tried.append((float(profits[best]), MovingAverageBaseline(fast=fast, slow=slow, band=float(bands[best]))))
    return max(tried, key=lambda item: item[0])[1]


def _gap(returns: FloatArray, fast: int, slow: int) -> FloatArray:
    """Mean of the last `fast` prices less that of the last `slow`, (N, T); zero until there are `slow` of them."""
    total = np.cumsum(np.cumsum(returns, axis=1), axis=1)
    total = np.concatenate([np.zeros((len(returns), 1)), total], axis=1)
    gap = np.zeros_like(returns)
    newest = total[:, slow:]
    gap[:, slow - 1 :] = (newest - total[:, slow - fast : -fast]) / fast - (newest - total[:, :-slow]) / slow
    return gap


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearBaseline:
    """Long from when the forecast of the next return is above one threshold until it is below another.

    weights (K, LAGS): of the returns and each signal, in the order of Paths.signals, newest first.
    """

    weights: FloatArray
    buy_above: float
    sell_below: float

    def __call__(self, paths: Paths) -> FloatArray:
        return hysteresis(_forecast(regressors(paths), self.weights), self.buy_above, self.sell_below)


def tuned_linear(train: Paths, cost_bps: float) -> LinearBaseline:
    """Least squares of the next return on the last LAGS returns and signals, over the first half of each path; then the
    two thresholds that earned most over the second, where the weights cannot have learned the noise.

    The normal equations are those of a design matrix with zeros before and after each path. No constant: every series
    of these markets has mean zero.
    """
    seen, returns, cost_frac = regressors(train), train.returns, cost_bps / 1e4
    half = returns.shape[1] // 2
    weights = _least_squares(seen[..., :half])
    forecast = _forecast(seen, weights)
    _, buy, sell = best_thresholds(forecast[:, half:], returns[:, half:], cost_frac, _THRESHOLDS_SDS)
    return LinearBaseline(weights=weights, buy_above=buy, sell_below=sell)


def best_thresholds(
    signal: FloatArray, returns: FloatArray, cost_frac: float, sds: tuple[float, ...]
) -> tuple[float, float, float]:
    """Profit, buy_above and sell_below of the pair that earns most, thresholds in standard deviations of the signal."""
    pairs = np.array([(buy, sell) for buy, sell in product(sds, sds) if sell <= buy and sell < math.inf])
    buy, sell = np.ascontiguousarray(signal.std() * pairs.T)  # strided ones would not be vectorised
    profits = hysteresis_profits(signal, returns, buy, sell, cost_frac)
    best = int(profits.argmax())
    return float(profits[best]), float(buy[best]), float(sell[best])


def regressors(paths: Paths) -> FloatArray:
    """(K, N, T): the returns, then the signals as decisions see them."""
    return np.stack([paths.returns, *(paths.at_decisions(name) for name in paths.signals)])


def _least_squares(seen: FloatArray) -> FloatArray:
    """seen (K, N, T), the returns first -> weights (K, LAGS) for the return after the newest."""
    k, _, steps = seen.shape
    size = 1 << (steps + LAGS).bit_length()
    spectra = np.fft.rfft(seen, size, axis=-1)
    needed = np.arange(1 - LAGS, LAGS + 1)
    products = np.empty((k, k, len(needed)))  # [i, j, h - needed[0]]: sum over t of i[t] * j[t + h]
    for i, j in product(range(k), range(k)):
        products[i, j] = np.fft.irfft((spectra[i].conj() * spectra[j]).sum(0), size)[needed]
    lags = np.arange(LAGS)
    gram = products[:, :, lags[:, None] - lags - needed[0]].transpose(0, 2, 1, 3).reshape(k * LAGS, k * LAGS)
    target = products[:, 0, lags + 1 - needed[0]].reshape(k * LAGS)
    return np.asarray(np.linalg.solve(gram, target).reshape(k, LAGS))


def _forecast(seen: FloatArray, weights: FloatArray) -> FloatArray:
    """(K, N, T), (K, LAGS) -> forecast (N, T) of the next return; what came before a path counts as zero."""
    steps = seen.shape[-1]
    size = 1 << (steps + LAGS).bit_length()
    spectrum = (np.fft.rfft(seen, size, axis=-1) * np.fft.rfft(weights, size, axis=-1)[:, None]).sum(0)
    return np.ascontiguousarray(np.fft.irfft(spectrum, size, axis=-1)[:, :steps])
