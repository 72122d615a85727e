"""Deciding as the backtest does: the described account, the halts, the order that waits, the age of the bars."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from export_fakes import frame, hand_made_bundle, loud_bundle, market, newest_bars
from learning_tasks import settings

from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.evaluation.backtest import backtest, encode_decisions
from btcai.features.pipeline import build_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.inference.decision import decide, sizes
from btcai.inference.holdings import account_rows
from btcai.market.account import (
    CASH,
    COOL_DOWN,
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_PRICE,
    N_LOTS,
    NO_ORDER,
    OPEN_LONG,
    PEAK_EQUITY,
    PENDING,
    SINCE_TRADE,
    START_EQUITY,
    drawdown_frac,
    new_accounts,
    open_lots,
)
from btcai.market.bars import bar_arrays
from btcai.market.kernel import observe, place, step_bar
from btcai.market.risk import DAILY_HALT, DRAWDOWN_HALT, NO_HALT
from btcai.market.rules import FREE_RULES, Rules, make_rules
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, TOKENS, Action, Decision, Float32Array, FloatArray, Span
from btcai.summary import bar_age, decision_view

CONFIG = settings()
SCALPING = CONFIG.buckets["scalping"]
NEEDED = TOKENS + WARMUP_BARS
MARK = float(market().mark[-1])
LOT = {"btc": 0.1, "entry_price": 30_000.0}
WORTH = 1e5 + 0.1 * MARK
HALTED = "drawdown halt: close all"
ONE_LOT = FREE_RULES._replace(max_lots=1)


@pytest.fixture(scope="module")
def buying(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return load_bundle(hand_made_bundle(tmp_path_factory.mktemp("buying")))


def decided(bundle: PolicyBundle, **account: Any) -> Decision:
    bars = market().bars
    return decide(bundle, newest_bars(bars, len(bars), NEEDED), {"cash_usdt": 1e5} | account)


@pytest.mark.parametrize(
    ("account", "message"),
    [
        ({"cash_usdt": 1.0, "cash": 1.0}, "remove cash$"),
        ({"cash_usdt": 10**400}, "cash_usdt must be a number from 0 to"),
        ({}, 'needs "cash_usdt"'),
        ({"cash_usdt": -1.0}, "cash_usdt must be a number from 0 to .*, was -1.0"),
        ({"cash_usdt": True}, "cash_usdt must be a number from 0 to"),
        ({"cash_usdt": "5"}, "cash_usdt must be a number from 0 to"),
        ({"cash_usdt": float("nan")}, "cash_usdt must be a number from 0 to"),
        ({"cash_usdt": 0.0, "equity_start_usdt": 5.0}, "worth more than nothing"),
        ({"cash_usdt": 1.0, "equity_start_usdt": 0.0}, "equity_start_usdt must be"),
        ({"cash_usdt": 1.0, "peak_equity_usdt": -1.0}, "peak_equity_usdt must be"),
        ({"cash_usdt": 1.0, "lots": [{"btc": 1.0, "entry_price": 1.0}] * 3}, "at most 2 open lots, the account has 3"),
        ({"cash_usdt": 1.0, "lots": [{"btc": 0.0, "entry_price": 1.0}]}, r"lots\[0\].btc must be"),
        ({"cash_usdt": 1.0, "lots": [{"btc": 1.0}]}, r"lots\[0\].entry_price must be .* was None"),
        ({"cash_usdt": 1.0, "lots": [{"btc": 1.0, "price": 1.0}]}, "lots must be a list of"),
        ({"cash_usdt": 1.0, "lots": {"btc": 1.0}}, "lots must be a list of"),
        ({"cash_usdt": 1.0, "lots": None}, "lots must be a list of"),
        ({"cash_usdt": 1.0, "lots": ["1 btc"]}, "lots must be a list of"),
        ({"cash_usdt": 1.0, "day_start_equity_usdt": 0.0}, "day_start_equity_usdt must be"),
        ({"cash_usdt": 1.0, "decisions_since_trade": -1}, "decisions_since_trade must be a whole number of at least 0"),
        ({"cash_usdt": 1.0, "decisions_since_trade": 1.5}, "decisions_since_trade must be a whole number .* was 1.5"),
        ({"cash_usdt": 1.0, "decisions_since_trade": 10**400}, "decisions_since_trade must be a whole number"),
        ({"cash_usdt": 1.0, "cool_down_bars": True}, "cool_down_bars must be a whole number"),
        ({"cash_usdt": 1.0, "cool_down_bars": None}, "cool_down_bars must be a whole number"),
        ({"cash_usdt": 1.0, "order_pending": 1}, "order_pending must be true, false, entry or exit, was 1"),
        ({"cash_usdt": 1.0, "order_pending": "false"}, "order_pending must be .* was 'false'"),
        ({"cash_usdt": 1.0, "cool_down_bars": 3, "halt": "weekly"}, "halt must be daily or drawdown"),
        ({"cash_usdt": 1.0, "cool_down_bars": 3, "halt": []}, "halt must be daily or drawdown"),
        ({"cash_usdt": 1.0, "halt": "daily"}, "halt needs cool_down_bars"),
    ],
)
def test_an_account_that_cannot_be_is_refused_by_name(account: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        account_rows(account, FREE_RULES._replace(max_lots=2), mark=30_000.0)


def test_a_described_account_is_valued_at_the_mark() -> None:
    lots = [{"btc": 0.5, "entry_price": 20_000.0}, {"btc": 0.25, "entry_price": 40_000}]
    described = {"cash_usdt": 1000, "lots": lots, "equity_start_usdt": 20_000, "peak_equity_usdt": 50_000.0}
    row, lot_rows = account_rows(described, FREE_RULES._replace(max_lots=3), mark=30_000.0)
    assert row[[CASH, N_LOTS]].tolist() == [1000.0, 2.0]
    assert row[EQUITY] == 1000 + 0.75 * 30_000
    assert row[[START_EQUITY, PEAK_EQUITY]].tolist() == [20_000.0, 50_000.0]
    assert lot_rows[:, LOT_COST_USDT].tolist() == [10_000.0, 10_000.0, 0.0]
    assert (
        account_rows({"cash_usdt": 7, "peak_equity_usdt": 3}, ONE_LOT, 1.0)[0][PEAK_EQUITY] == 7.0
    )  # a peak is never below


def test_a_described_account_fills_the_kernels_row() -> None:
    described = {"cash_usdt": 7, "day_start_equity_usdt": 8.5, "decisions_since_trade": 4, "order_pending": True}
    row, _ = account_rows(described | {"cool_down_bars": 12}, ONE_LOT, 1.0)
    assert row[[DAY_START_EQUITY, SINCE_TRADE, COOL_DOWN]].tolist() == [8.5, 4.0, 12.0]
    assert row[HALT] == DAILY_HALT
    assert row[PENDING] != Action.HOLD
    assert (
        account_rows({"cash_usdt": 7, "cool_down_bars": 1, "halt": "drawdown"}, ONE_LOT, 1.0)[0][HALT] == DRAWDOWN_HALT
    )
    plain = account_rows({"cash_usdt": 7}, ONE_LOT, 1.0)[0]
    assert plain[[DAY_START_EQUITY, SINCE_TRADE, COOL_DOWN, HALT, PENDING]].tolist() == [7.0, 0.0, 0.0, NO_HALT, 0.0]


def test_short_lots_are_described_where_the_market_allows_them() -> None:
    # sold 0.5 BTC at 20,000: cash 1,000 + 10,000; bought back at 15,000 it is worth 11,000 - 7,500
    shorts = FREE_RULES._replace(perpetual=True, allow_short=True)
    described = {"cash_usdt": 11_000, "lots": [{"btc": -0.5, "entry_price": 20_000.0}]}
    row, lot_rows = account_rows(described, shorts, mark=15_000.0)
    assert row[EQUITY] == 3_500.0
    assert lot_rows[0, LOT_COST_USDT] == 10_000.0
    with pytest.raises(DataError, match=r"lots\[0\].btc must be"):
        account_rows(described, FREE_RULES, mark=15_000.0)
    mixed = described | {"lots": [*described["lots"], {"btc": 0.1, "entry_price": 20_000.0}]}
    with pytest.raises(DataError, match="all long or all short"):
        account_rows(mixed, shorts, mark=15_000.0)


def test_a_drawdown_past_the_limit_closes_all_whatever_the_policy_says(buying: PolicyBundle) -> None:
    limit = WORTH / (1 - CONFIG.risk.drawdown_halt_frac)
    halted = decided(buying, lots=[LOT], peak_equity_usdt=limit * 1.001)
    assert (halted.action, halted.size_frac, halted.note) == (Action.CLOSE_ALL, 0.0, HALTED)
    assert halted.probabilities[Action.BUY] > 0.4  # what the network said stays readable
    assert len(halted.forecasts) == 3
    within = decided(buying, lots=[LOT], peak_equity_usdt=limit * 0.999)
    assert (within.action, within.note) == (Action.BUY, "")


def test_a_drawdown_halt_replaces_an_order_that_waits(buying: PolicyBundle) -> None:
    halted = decided(buying, lots=[LOT], peak_equity_usdt=2 * WORTH, order_pending=True)
    assert (halted.action, halted.note) == (Action.CLOSE_ALL, HALTED)


def test_a_drawdown_halt_goes_on_while_it_lasts_though_the_loss_is_made_up(buying: PolicyBundle) -> None:
    halted = decided(buying, lots=[LOT], cool_down_bars=1, halt="drawdown")
    assert (halted.action, halted.note) == (Action.CLOSE_ALL, HALTED)


@pytest.mark.parametrize(
    ("account", "note"),
    [
        ({"peak_equity_usdt": 2e5}, "drawdown halt: no new lots, cancel an entry that waits"),
        ({"day_start_equity_usdt": 1.06e5}, "daily halt: no new lots, cancel an entry that waits"),  # down 5.7 %
        ({"cool_down_bars": 1}, "daily halt: no new lots, cancel an entry that waits"),
        ({"cool_down_bars": 1, "halt": "drawdown"}, "drawdown halt: no new lots, cancel an entry that waits"),
        ({"order_pending": True}, "order pending"),
        ({"cash_usdt": 0.0, "lots": [LOT]}, "no cash or exposure is left for a lot"),
        ({"lots": [LOT] * SCALPING.max_lots}, f"all {SCALPING.max_lots} lots are open"),
    ],
)
def test_a_lot_that_the_kernel_would_not_open_is_not_bought(
    buying: PolicyBundle, account: dict[str, Any], note: str
) -> None:
    decision = decided(buying, **account)
    assert (decision.action, decision.size_frac, decision.note) == (Action.HOLD, 0.0, note)


def test_a_day_that_lost_less_than_the_limit_goes_on(buying: PolicyBundle) -> None:
    assert decided(buying, day_start_equity_usdt=1.05e5).action is Action.BUY  # down 4.8 %


@pytest.mark.parametrize(("action", "logits"), [(Action.SELL, (0, 0, 1, 0)), (Action.CLOSE_ALL, (0, 0, 0, 1))])
def test_lots_may_be_sold_in_a_daily_halt_but_not_while_an_order_waits(
    tmp_path: Path, action: Action, logits: tuple[float, float, float, float]
) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path, logits=logits))
    assert decided(bundle, lots=[LOT], cool_down_bars=5).action is action
    waiting = decided(bundle, lots=[LOT], order_pending=True)
    assert (waiting.action, waiting.note) == (Action.HOLD, "order pending")
    empty = decided(bundle)
    assert (empty.action, empty.note) == (Action.HOLD, "no lot is open to sell")


def gapped() -> pd.DataFrame:
    """A market with thin volume and missing bars inside the span that is traded: orders wait and fill in part."""
    raw = frame(3_600).copy()
    missing = np.random.default_rng(5).random(len(raw)) < 0.1
    missing[:3_000] = missing[-1] = False
    return raw[~missing].reset_index(drop=True)


def strict(rules: Rules) -> Rules:
    """Rules whose every limit is met within three hundred decisions."""
    limits = {"daily_loss_halt_frac": 0.0015, "drawdown_halt_frac": 0.0025, "cool_down_bars": 7}
    return rules._replace(**limits, max_volume_share=0.0002, stop_loss_frac=0.004)


def described(row: FloatArray, lots: FloatArray, rules: Rules) -> dict[str, Any]:
    """The kernel's row as someone would keep it in a file, who learns of a halt from the decision that it trips at."""
    account = {
        "cash_usdt": row[CASH],
        "lots": [{"btc": lot[LOT_BTC], "entry_price": lot[LOT_ENTRY_PRICE]} for lot in open_lots(row, lots)],
        "equity_start_usdt": row[START_EQUITY],
        "peak_equity_usdt": row[PEAK_EQUITY],
        "day_start_equity_usdt": row[DAY_START_EQUITY],
        "decisions_since_trade": int(row[SINCE_TRADE]),
        "cool_down_bars": int(row[COOL_DOWN]),
        "order_pending": {NO_ORDER: False, OPEN_LONG: "entry"}.get(int(row[PENDING]), "exit"),
    }
    if row[COOL_DOWN] == rules.cool_down_bars:
        account["cool_down_bars"] = 0
        if row[HALT] == DRAWDOWN_HALT:
            account["order_pending"] = False  # the close that the halt ordered is what the decision says
    elif row[HALT] != NO_HALT:
        account["halt"] = {DAILY_HALT: "daily", DRAWDOWN_HALT: "drawdown"}[int(row[HALT])]
    found: dict[str, Any] = json.loads(json.dumps(account))
    return found


def test_deciding_from_a_file_is_the_backtest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = strict(make_rules(SCALPING, CONFIG.market, CONFIG.risk))
    sizing = CONFIG.sizing.model_copy(update={"target_volatility": 5.0, "max_uncertainty": 1.5})
    changes = {"rules": rules._asdict(), "sizing": sizing.model_dump(mode="json")}
    bundle = load_bundle(loud_bundle(tmp_path, seed=7, **changes))
    data = build_market(to_grid(gapped()))
    span = Span(3_200, 3_501)
    [tested] = backtest(bundle, data, span, SCALPING, [rules], sizing, 1e5)
    assert len(tested.decisions) == 300

    encoded = encode_decisions(bundle, data, tested.decisions)
    size_frac, allowed = sizes(bundle, SCALPING, sizing, encoded, data.sigma[tested.decisions])
    accounts, all_lots = new_accounts(1, SCALPING.max_lots, 1e5)
    row, lots, bars = accounts[0], all_lots[0], bar_arrays(data)
    seen: list[Float32Array] = []
    head = bundle.head

    def watched(latent: Float32Array, account: Float32Array) -> tuple[Float32Array, Float32Array]:
        seen.append(account[0].copy())
        return head(latent, account)

    monkeypatch.setattr(bundle, "head", watched)
    met = set()
    for d, t in enumerate(tested.decisions.tolist()):
        account, before = described(row, lots, rules), (row[HALT], row[N_LOTS] > 0, row[PENDING] != Action.HOLD)
        observed = np.empty(len(ACCOUNT_FEATURES), np.float32)
        observe(row, lots, bars, t, rules, observed)
        place(row, int(tested.actions[d]), float(size_frac[d]), bool(allowed[d]), rules)
        standing = Action(int(row[PENDING]))
        closing = before[0] == DRAWDOWN_HALT and before[1]
        expected = standing if closing or not before[2] else Action.HOLD
        made_up = drawdown_frac(row) < rules.drawdown_halt_frac
        kind = (*before, expected, bool(allowed[d]), made_up, int(row[COOL_DOWN]))
        if kind not in met or d % 20 == 0:
            decision = decide(bundle, newest_bars(data.bars, t + 1, NEEDED), account)
            assert int(np.argmax(decision.probabilities)) == tested.actions[d]
            assert decision.action is expected
            assert decision.size_frac == pytest.approx(size_frac[d] if expected is Action.BUY else 0.0, rel=1e-5)
            np.testing.assert_array_equal(seen.pop(), observed)
        met.add(kind)
        step_bar(row, lots, bars, t + 1, rules)
        assert row[EQUITY] == tested.equity_usdt[t + 1 - span.first]  # the same walk, bar by bar
    assert {action for _, _, _, action, *_ in met} == set(Action)
    assert {halt for halt, *_ in met} == {NO_HALT, DAILY_HALT, DRAWDOWN_HALT}
    assert {pending for _, _, pending, *_ in met} == {True, False}
    closed = {
        made_up for halt, _, _, action, _, made_up, _ in met if halt == DRAWDOWN_HALT and action is Action.CLOSE_ALL
    }
    assert closed == {True, False}  # sold in parts, a drawdown halt goes on although prices have recovered
    assert {entry for *_, entry, _, _ in met} == {True, False}


@pytest.mark.parametrize(
    ("minutes", "patch_bars", "text"),
    [
        (0.5, 1, "closed 0 min ago"),
        (3.9, 1, "closed 3 min ago"),
        (5.0, 1, "closed 5 min ago: old bars"),  # the next decision time has come
        (49.0, 10, "closed 49 min ago"),
        (119.0, 24, "closed 119 min ago"),
        (120.0, 24, "closed 2 h ago: old bars"),
        (47 * 60 + 59.0, 1, "closed 47 h ago: old bars"),
        (611 * 1440 + 700.0, 1, "closed 611 days ago: old bars"),
        (-7.0, 1, "7 min ahead of this computer's clock"),
    ],
)
def test_the_age_of_the_bar_is_said(minutes: float, patch_bars: int, text: str) -> None:
    close = 5_666_667 * BAR_NS
    assert bar_age(close, close + round(minutes * 60e9), patch_bars) == text


def test_the_view_says_which_rule_spoke_and_how_old_the_bar_is(buying: PolicyBundle) -> None:
    from io import StringIO

    from rich.console import Console

    decision = decided(buying, lots=[LOT], peak_equity_usdt=2 * WORTH)
    shown = StringIO()
    age = bar_age(decision.close_ts_ns, decision.close_ts_ns + 2 * BAR_NS, 1)
    Console(file=shown, width=200).print(decision_view(decision, None, "a.json", age=age))
    assert "UTC, closed 10 min ago: old bars" in shown.getvalue()
    assert HALTED in shown.getvalue()
    assert "close all" in shown.getvalue().split("action")[1].splitlines()[0]
