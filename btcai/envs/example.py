"""The picture docs/account.png, the same every time: python -m btcai.envs.example docs/account.png."""

import sys
from pathlib import Path

import numpy as np

from btcai.data.store import to_grid
from btcai.envs.picture import account_figure
from btcai.envs.recording import Walk, record_walk
from btcai.envs.scenario import Scenario
from btcai.features.pipeline import build_market
from btcai.features.scaling import fit_scaler
from btcai.market.rules import FREE_RULES
from btcai.pictures import png_bytes
from btcai.schema import BARS_PER_DAY, TOKENS, Action, FloatArray, IntArray, Span
from btcai.simulator.bars import simulate_bars

DAYS = 21
SEED = 7

RULES = FREE_RULES._replace(
    taker_fee_frac=0.0005,
    maker_fee_frac=0.0002,
    half_spread_frac=0.0001,
    impact_coef=1.0,
    max_volume_share=0.1,
    lot_step_btc=0.00001,
    tick_usdt=0.01,
    min_notional_usdt=5.0,
    perpetual=True,
    allow_short=True,
    missing_funding_frac=0.0001,
    maintenance_frac=0.05,
    transfer_every_days=7,
    transfer_usdt=5_000.0,
    transfer_daily_probability=0.2,
    transfer_max_frac=0.1,
    max_lots=6,
    stop_loss_frac=0.02,
    take_profit_frac=0.02,
    compound=True,
)
"""A perpetual swap with everything on that a picture can show."""


def example_walk() -> Walk:
    """Three weeks of a simulated market: a trend follower that asks every four hours, no advice to anyone."""
    data = build_market(to_grid(simulate_bars(60 * BARS_PER_DAY, SEED)))
    span = Span(data.warmup_bars, len(data))
    scenario = Scenario(data, span, RULES, fit_scaler(data.features, span), size_frac=0.15)
    start = span.first + TOKENS - 1
    return record_walk(scenario, start, _trend_actions(data.mark[: start + DAYS * BARS_PER_DAY], start).tolist(), SEED)


def _trend_actions(mark: FloatArray, start: int) -> IntArray:
    """At the closes start .. len(mark) - 1, every 48th: with the last day's return beyond half a percent, else out."""
    bar = np.arange(start, len(mark))
    day_return = mark[bar] / mark[bar - BARS_PER_DAY] - 1.0
    wanted = np.select([day_return > 0.005, day_return < -0.005], [Action.BUY, Action.SELL], Action.CLOSE_ALL)
    return np.where((bar - start) % 48 == 0, wanted, Action.HOLD)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png_bytes(account_figure(example_walk())))
