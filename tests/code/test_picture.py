"""An account's walk written down and drawn: every fill with its cause, and numbers that are the environment's."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from market_wild import wild_market, wild_rules
from market_world import FREE, make_market

from btcai.envs.example import example_walk
from btcai.envs.picture import account_figure, pixels
from btcai.envs.recording import Fill, Walk, record_walk
from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.features.scaling import fit_scaler
from btcai.market.rules import Rules
from btcai.pictures import png_bytes
from btcai.schema import Action, MarketData, Span

START = 143  # the first bar with a whole lookback
HOLD, BUY, SELL, CLOSE_ALL = Action
SWAP = FREE._replace(perpetual=True, allow_short=True)


def walk(data: MarketData, rules: Rules, *actions: int, size_frac: float = 0.1) -> Walk:
    span = Span(0, len(data))
    scenario = Scenario(data, span, rules, fit_scaler(data.features, span), size_frac=size_frac)
    return record_walk(scenario, START, actions, account_seed=0)


def prices(*after: float) -> list[float]:
    """100 up to bar START, then these opens."""
    return [100.0] * (START + 1) + [*after]


def test_orders_are_recorded_as_lots_opened_and_closed() -> None:
    seen = walk(make_market(prices(100, 110, 120, 120)), FREE, BUY, BUY, CLOSE_ALL)
    second = 10_000 / 110  # lots are shares of the start's equity: FREE does not compound
    expected = [
        Fill(144, "opened", 100.0, 100.0, 144),
        Fill(145, "opened", second, 110.0, 145),
        Fill(146, "closed", -100.0, 120.0, 144),
        Fill(146, "closed", -second, 120.0, 145),
    ]
    assert [fill.cause for fill in seen.fills] == [fill.cause for fill in expected]
    for fill, worked in zip(seen.fills, expected, strict=True):
        assert fill[2:] == pytest.approx(worked[2:])
        assert fill.bar == worked.bar


def test_walk_begins_before_anything_happened_and_holds_every_bar() -> None:
    data = make_market(prices(100, 110, 120, 120))
    seen = walk(data, FREE._replace(patch_bars=1), BUY, HOLD)
    assert seen.bar.tolist() == [143, 144, 145]
    assert seen.equity_usdt.tolist() == pytest.approx([100_000, 101_000, 102_000])
    assert seen.n_lots.tolist() == [0, 1, 1]
    assert seen.mark_usdt.tolist() == [100, 110, 120]
    assert seen.close_ts_ns.tolist() == data.bars.close_ts_ns[143:146].tolist()


def test_stop_is_told_from_an_order_of_the_same_bar() -> None:
    # Two lots at 100; SELL closes the oldest at 100, then the same bar falls to 90 and stops the other at 95.
    data = make_market(prices(100, 100, 100, 100), lows={146: 90.0})
    seen = walk(data, FREE._replace(stop_loss_frac=0.05), BUY, BUY, SELL)
    assert [(fill.cause, fill.bar, fill.price_usdt, fill.entry_bar) for fill in seen.fills[2:]] == [
        ("closed", 146, 100.0, 144),
        ("stopped", 146, 95.0, 145),
    ]


def test_lot_stopped_in_the_bar_of_its_entry_is_opened_and_stopped() -> None:
    data = make_market(prices(100, 100), lows={144: 90.0})
    seen = walk(data, FREE._replace(stop_loss_frac=0.05), BUY)
    assert [(fill.cause, fill.bar, fill.price_usdt) for fill in seen.fills] == [
        ("opened", 144, 100.0),
        ("stopped", 144, 95.0),
    ]


def test_target_and_its_part_that_the_volume_left_open() -> None:
    # A lot of 100 BTC; a tenth of the volume of bar 145 is 40 BTC, of bar 146 plenty.
    volume = [1e6] * 145 + [400.0, 1e6, 1e6]
    data = make_market(prices(100, 100, 100, 100), highs={145: 111.0, 146: 111.0}, volume=volume)
    seen = walk(data, FREE._replace(take_profit_frac=0.1, max_volume_share=0.1), BUY, HOLD, HOLD)
    assert [(fill.cause, fill.bar) for fill in seen.fills] == [("opened", 144), ("target", 145), ("target", 146)]
    assert [fill.btc for fill in seen.fills] == pytest.approx([100.0, -40.0, -60.0])
    assert [fill.price_usdt for fill in seen.fills] == pytest.approx([100.0, 110.0, 110.0])


def test_squeezed_short_is_liquidated() -> None:
    # 1,000 BTC sold at 100 leave 200,000 USDT: nothing is left at 200.
    data = make_market(prices(100, 100, 100), highs={145: 250.0})
    seen = walk(data, SWAP._replace(max_lots=1), SELL, HOLD, size_frac=1.0)
    assert [(fill.cause, fill.btc) for fill in seen.fills] == [
        ("opened", pytest.approx(-1000.0)),
        ("liquidated", pytest.approx(1000.0)),
    ]
    assert seen.fills[1].price_usdt == pytest.approx(200.0)


@pytest.mark.slow
@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(rules=wild_rules, seed=st.integers(0, 2**32 - 1))
def test_under_any_rules_the_record_ends_where_the_environment_does(rules: Rules, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = wild_market(rng, 144 * rules.patch_bars + 60)
    span = Span(0, len(data))
    env = TradingEnv(Scenario(data, span, rules, fit_scaler(data.features, span), size_frac=0.3))
    _, info = env.reset(seed=seed)
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(rng.integers(4))
        over = terminated or truncated
    seen = env.walk()
    last = {"bar": seen.bar, "equity_usdt": seen.equity_usdt, "costs_usdt": seen.costs_usdt, "n_lots": seen.n_lots}
    last |= {"funding_usdt": seen.funding_usdt, "transferred_usdt": seen.transferred_usdt}
    assert {name: column[-1] for name, column in last.items()} == {name: info[name] for name in last}
    held = np.bincount([fill.bar for fill in seen.fills], [fill.btc for fill in seen.fills], minlength=len(data))
    np.testing.assert_allclose(np.cumsum(held)[seen.bar], seen.held_btc, rtol=1e-9, atol=1e-9)


def test_render_is_a_picture_of_the_episode_so_far() -> None:
    data = make_market(prices(*np.linspace(100, 120, 30)))
    span = Span(0, len(data))
    scenario = Scenario(data, span, FREE, fit_scaler(data.features, span))
    env = TradingEnv(scenario, render_mode="rgb_array")
    env.reset()
    empty = env.render()
    for _ in range(20):
        env.step(BUY)
    later = env.render()
    assert later.shape == empty.shape == (1100, 1200, 3)
    assert later.dtype == np.uint8
    assert (later != empty).any()
    assert TradingEnv(scenario).render() is None


def test_picture_names_what_it_shows_with_units() -> None:
    # One of everything: a deposit, funding, a long lot that is stopped, a short one that reaches its target.
    rules = SWAP._replace(stop_loss_frac=0.05, take_profit_frac=0.05, transfer_every_days=1, transfer_usdt=5_000.0)
    data = make_market(
        [100.0] * 300,
        lows={150: 94.0, 160: 94.0},
        funding={155: -0.001},
    )
    seen = walk(data, rules, BUY, *[HOLD] * 9, SELL, *[HOLD] * 140)
    figure = account_figure(seen)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["price, USDT", "open lots", "equity, USDT", "costs, USDT", "below the peak, %"]
    legends = {text.get_text() for axes in figure.axes if (legend := axes.get_legend()) for text in legend.get_texts()}
    assert legends == {
        "mark",
        "long lot opened",
        "short lot opened",
        "stopped",
        "target reached",
        "long",
        "short",
        "equity",
        "without transfers",
        "deposit",
        "all costs so far",
        "of which funding",
    }
    assert figure.axes[-1].get_xlabel() == "UTC"
    assert png_bytes(account_figure(seen)) == png_bytes(figure)
    assert pixels(figure).shape == (1100, 1200, 3)


def test_deposit_is_no_profit_in_the_equity_without_transfers() -> None:
    rules = FREE._replace(transfer_every_days=1, transfer_usdt=5_000.0)
    seen = walk(make_market([100.0] * 300), rules, *[HOLD] * 150)
    assert (seen.equity_usdt[0], seen.equity_usdt[-1]) == (100_000, 105_000)
    lines = account_figure(seen).axes[2].get_lines()
    np.testing.assert_allclose(lines[1].get_ydata(), 100_000)


@pytest.mark.slow
def test_picture_of_the_docs_is_the_same_bytes_each_time() -> None:
    first, second = (png_bytes(account_figure(example_walk())) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    causes = {fill.cause for fill in example_walk().fills}
    assert causes >= {"opened", "closed", "stopped", "target"}
