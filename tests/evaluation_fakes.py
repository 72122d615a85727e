"""A small market and a policy without a network, for the tests of evaluation."""

from dataclasses import dataclass

import numpy as np

from btcai.inference.bundle import Encoded
from btcai.schema import BAR_NS, QUANTILE_LEVELS, TOKENS, Action, Bars, Float32Array, MarketData

FEATURES = ("signal", "log_sigma", "mask")
BAR_SIGMA = 0.002


def make_market(
    n_bars: int,
    seed: int = 0,
    *,
    first_close_bar: int = 5_700_000,
    missing: tuple[int, ...] = (),
    drift: float = 0.0,
    warmup_bars: int = 0,
) -> MarketData:
    """A random walk of 20 bp a bar with gaps between close and open; feature 0 is that bar's own log return."""
    rng = np.random.default_rng(seed)
    returns = drift + rng.normal(0.0, BAR_SIGMA, n_bars)
    close = 30_000.0 * np.exp(np.cumsum(returns))
    open_ = np.concatenate(([30_000.0], close[:-1])) * np.exp(rng.normal(0.0, 0.0003, n_bars))
    high = np.maximum(open_, close) * (1.0 + rng.uniform(0.0, 0.001, n_bars))
    low = np.minimum(open_, close) * (1.0 - rng.uniform(0.0, 0.001, n_bars))
    volume = rng.uniform(40.0, 120.0, n_bars)
    present = np.ones(n_bars, np.bool_)
    present[list(missing)] = False
    mark = close.copy()
    for bar in missing:  # ascending: a run of gaps keeps the last close before it
        mark[bar] = mark[bar - 1] if bar else np.nan
    for column in (open_, high, low, close):
        column[~present] = np.nan
    volume[~present] = 0.0
    features = np.stack([returns, np.full(n_bars, np.log(BAR_SIGMA)), np.ones(n_bars)], axis=1).astype(np.float32)
    features[~present] = 0.0
    close_ts_ns = (first_close_bar + np.arange(n_bars, dtype=np.int64)) * BAR_NS
    return MarketData(
        bars=Bars(close_ts_ns=close_ts_ns, open=open_, high=high, low=low, close=close, volume=volume, present=present),
        mark=mark,
        sigma=np.full(n_bars, BAR_SIGMA),
        features=features,
        feature_names=FEATURES,
        warmup_bars=warmup_bars,
    )


@dataclass(kw_only=True)
class FakePolicy:
    """Buys when the mean signal of its lookback is high, sells when low, closes all when lower; its latent is it.

    `always`: act so at every decision instead, whatever the market says.
    """

    bucket: str = "scalping"
    patch_bars: int = 1
    horizons_bars: tuple[int, ...] = (3, 12, 36)
    always: Action | None = None
    encoded_rows: int = 0

    @property
    def lookback_bars(self) -> int:
        return TOKENS * self.patch_bars

    def encode(self, features: Float32Array) -> Encoded:
        """Rows ((D + 143) * patch, F) -> D decision times."""
        rows, patch = len(features), self.patch_bars
        assert rows % patch == 0
        assert rows >= self.lookback_bars
        self.encoded_rows += rows
        decided = rows // patch - TOKENS + 1
        ends = patch * (np.arange(decided) + TOKENS)
        windows = np.lib.stride_tricks.sliding_window_view(features[:, 0], self.lookback_bars)
        latent = windows[ends - self.lookback_bars].mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
        horizons, levels = len(self.horizons_bars), len(QUANTILE_LEVELS)
        std = np.tile(BAR_SIGMA * np.sqrt(self.horizons_bars, dtype=np.float32), (decided, 1)).astype(np.float32)
        return Encoded(
            latent=latent,
            gates=np.full((decided, 3), 1 / 3, np.float32),
            mean=np.repeat(latent, horizons, axis=1),
            std=std,
            quantiles=np.zeros((decided, horizons, levels), np.float32),
            unfamiliarity=np.full(decided, 0.5, np.float32),
        )

    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        """latent (B, 1), account (B, A) -> (B, 4); what the account cannot do has probability 0."""
        signal = latent[:, 0] * np.float32(self.lookback_bars**0.5 / BAR_SIGMA)  # about standard normal
        scores = np.stack([np.zeros_like(signal), signal - 0.3, -signal - 0.4, -3.0 * signal - 1.4], axis=1)
        if self.always is not None:
            scores[:, int(self.always)] += 100.0
        scores[:, 1] = np.where(account[:, 7] > 0, scores[:, 1], -np.inf)
        scores[:, 2:] = np.where(account[:, 8:9] > 0, scores[:, 2:], -np.inf)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Float32Array = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares
