"""The chain of one decision: its steps, what they say, and that it fits on a screen."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from feature_bars import without
from reasoning_fakes import QUANTILES, bucket_of, case, market
from rich.console import Console

from btcai.errors import ConfigError
from btcai.features.pipeline import build_market
from btcai.inference.holdings import Rulebook, account_at_close
from btcai.reasoning.chain import Case, reason
from btcai.reasoning.components import COMPONENTS, EQUAL_WEIGHTS
from btcai.reasoning.records import Recalled, reasoning_json
from btcai.reasoning.steps import BLIND, lots_past_stop, rise_chance, stop_and_target
from btcai.reasoning.view import rendered
from btcai.reasoning.words import capital, counted, lasting, number, percent, signed, signed_percent
from btcai.schema import BUCKETS, Action, Forecast

ORDER = (*COMPONENTS, "forecast", "memory", "policy", "sizing", "risk", "decision")
RECALLED = Recalled(
    n=12,
    mean_outcome=0.05,
    hit_rate=0.75,
    confidence=0.4,
    nearest=((1_700_000_100_000_000_000, 0.5, 0.1), (1_690_000_200_000_000_000, 0.7, -0.001)),
)


def with_account(account: dict[str, Any], **changes: object) -> Case:
    """The case of a described account."""
    base = case(**changes)
    mark, day = float(base.data.mark[-1]), int(base.data.bars.close_ts_ns[-1] // 86_400_000_000_000)
    row, lots = account_at_close(account, Rulebook.of(base.rules), mark, day)
    return replace(base, account=row, lots=lots)


def shown(view: Any, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(view)
    return captured.get().splitlines()


def strict(text: str) -> Any:
    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refused)


def test_every_step_is_there_in_its_order() -> None:
    found = reason(case())
    assert tuple(step.name for step in found.steps) == ORDER
    assert all(step.sentence.endswith(".") for step in found.steps)
    assert (found.bucket, found.action, found.size_frac, found.account) == ("scalping", "BUY", 0.0125, "flat")
    scores = [step.score for step in found.steps if step.score is not None]
    assert max(map(abs, scores)) <= 1.0
    assert found.step("policy").score == 0.5 - 0.125 - 0.125
    with pytest.raises(KeyError, match="must be one of regime"):
        found.step("gut feeling")


@pytest.mark.parametrize("name", BUCKETS)
def test_the_same_case_gives_the_same_json_and_it_is_strict(name: str) -> None:
    data = market(8_500)
    text = reasoning_json(reason(case(name, data)))
    assert text == reasoning_json(reason(case(name, data)))
    record = strict(text)
    assert [step["name"] for step in record["steps"]] == list(ORDER)
    assert record["steps"][0]["facts"]["fit"] is not None
    assert record["recalled"] is None
    assert "\n" not in text


@pytest.mark.parametrize("name", BUCKETS)
def test_it_fits_on_a_screen(name: str) -> None:
    lots = [{"btc": 0.05, "entry_price": 41_234.5}] * 3
    base = case(name, market(8_500), note="all lots are open")
    mark = float(base.data.mark[-1])
    held = {"cash_usdt": 50_000, "lots": lots, "order_pending": "exit"}
    row, rows = account_at_close(held, Rulebook.of(base.rules), mark, 1)
    found = rendered(reason(replace(base, account=row, lots=rows, recalled=RECALLED)))
    wide, narrow = shown(found, 120), shown(found, 80)
    assert len(wide) <= 40
    assert max(map(len, narrow)) <= 80
    for name in ORDER:
        assert any(line.startswith(name.replace("_", " ")) for line in narrow), name
    assert " ".join(wide).count("…") == 0


def test_sentences_carry_their_numbers() -> None:
    found = reason(case(note=""))
    assert found.step("policy").sentence == (
        "Buy 50.0 %, hold 25.0 %, sell 12.5 %, close all 12.5 %; expected reward from here +0.5000."
    )
    assert found.step("decision").sentence == "Buy a lot of 1.25 % of equity: what the policy finds likeliest."
    assert found.step("risk").sentence == (
        "No halt; exposure 0.0 % of at most 100 %, 0 lots of 25; drawdown 0.0 %, halts at 30 %; the day 0.00 %, "
        "halts at -5 %; may buy, may not sell."
    )
    # Phi(.1) = .5398 over every horizon; as simple returns exp(.001 + .01^2 / 2), exp(-.02) and exp(.021), less 1
    assert found.step("forecast").sentence.startswith(
        "Mean return, its 90 % interval and chance to rise: 15 min +0.11 %, -1.98 % to +2.12 %, 54.0 %; 1 h "
    )
    assert found.step("memory").sentence == "No memory is kept of earlier situations."


def test_sizing_is_that_of_the_market_beside_its_limits() -> None:
    base = case()
    sigma = float(base.data.sigma[-1])
    facts = reason(base).step("sizing").facts
    doubt = 0.01 / (sigma * math.sqrt(3))
    assert facts["uncertainty"] == pytest.approx(doubt)
    yearly = sigma * math.sqrt(365 * 288)
    assert facts["lot_frac"] == pytest.approx(min(1.0, 0.5 / (yearly * max(1.0, doubt))) / 25)
    assert facts["allowed"] == float(doubt <= base.sizing.max_uncertainty)
    strange = reason(case(unfamiliarity=5.0)).step("sizing")
    assert strange.facts["allowed"] == 0.0
    assert "no lot is allowed" in strange.sentence
    assert "unfamiliarity 5.00 of at most 2" in strange.sentence


def test_a_doubtful_forecast_is_not_believed() -> None:
    def forecasts(mean: float, std: float) -> tuple[Forecast, ...]:
        bars = bucket_of("scalping")[0].horizons_bars
        return tuple(Forecast(horizon_bars=h, mean=mean, std=std, quantiles=QUANTILES) for h in bars)

    sigma = float(case().data.sigma[-1]) * math.sqrt(3)
    sure = reason(case(forecasts=forecasts(sigma, sigma), unfamiliarity=0.5)).step("forecast")
    # a third of the uncertainty's limit, a quarter of the unfamiliarity's: 2/3 * 3/4
    assert sure.confidence == pytest.approx(0.5, rel=1e-6)
    assert sure.score == pytest.approx(2 * 0.841345 - 1, abs=1e-5)
    for doubtful in (
        case(forecasts=forecasts(sigma, 4 * sigma)),
        case(unfamiliarity=3.0),
        case(forecasts=forecasts(sigma, 4 * sigma), unfamiliarity=3.0),
        case(forecasts=forecasts(math.nan, math.nan)),
    ):
        step = reason(doubtful).step("forecast")
        assert step.confidence == 0.0
        strict(reasoning_json(reason(doubtful)))
    assert rise_chance(forecasts(math.nan, 1.0)[0]) == 0.5


def test_a_held_lot_adds_its_stop_and_what_is_forecast_against_it() -> None:
    base = case()
    mark, sigma = float(base.data.mark[-1]), float(base.data.sigma[-1])
    lot = {"btc": 0.1, "entry_price": mark / 1.02}
    found = reason(with_account({"cash_usdt": 50_000, "lots": [lot], "decisions_since_trade": 12})).step("exit")
    assert found.facts["oldest_return_frac"] == pytest.approx(0.02)
    assert found.facts["stop_sigmas"] == pytest.approx(math.log(1.02 / 0.97) / sigma)
    assert math.isnan(found.facts["target_sigmas"])
    assert found.facts["adverse_chance"] == pytest.approx(0.4602, abs=1e-4)
    assert "The oldest of 1 lot stands at +2.00 %" in found.sentence
    assert "no target; last fill 1 h ago; 46.0 % to move against it in 15 min." in found.sentence
    assert "No lot is open." in reason(base).step("exit").sentence
    untold = reason(with_account({"cash_usdt": 50_000, "lots": [lot]})).step("exit")
    assert "no target; 46.0 % to move against it in 15 min." in untold.sentence


def test_a_stop_that_the_mark_has_passed_is_not_away() -> None:
    base = case()
    mark, sigma = float(base.data.mark[-1]), float(base.data.sigma[-1])
    held = with_account({"cash_usdt": 50_000, "lots": [{"btc": 0.1, "entry_price": mark / 0.9}]})
    found = reason(held).step("exit")  # the stop is 3 % below the entry, the mark 10 %
    beyond = math.log(0.97 / 0.9) / sigma
    assert found.facts["stop_sigmas"] == pytest.approx(-beyond)
    assert f"stands at -10.00 %, stop passed by {beyond:.1f} sigma, no target" in found.sentence
    assert lots_past_stop(held.account, held.lots, mark, held.rules) == 1
    assert lots_past_stop(held.account, held.lots, mark / 0.9, held.rules) == 0
    assert stop_and_target(100.0, 1.0, held.rules._replace(take_profit_frac=0.05)) == pytest.approx((97.0, 105.0))
    short = stop_and_target(100.0, -1.0, held.rules)
    assert short == pytest.approx((103.0, math.nan), nan_ok=True)


def test_halts_and_refusals_are_said() -> None:
    account = {"cash_usdt": 100_000, "cool_down_bars": 24, "halt": "daily", "day_start_equity_usdt": 106_000}
    note = "daily halt: no new lots, cancel an entry that waits"
    found = reason(with_account(account, action=Action.HOLD, size_frac=0.0, note=note))
    assert found.step("risk").sentence.startswith("A daily halt for 2 h more; exposure 0.0 %")
    assert "the day -5.66 %" in found.step("risk").sentence
    assert found.step("risk").sentence.endswith("may not buy, may not sell.")
    assert found.step("decision").sentence == f"Hold, not buy as the policy wants: {note}."
    assert found.step("decision").score == 0.0


def test_what_is_remembered_is_told_with_its_nearest() -> None:
    found = reason(replace(case(), recalled=RECALLED))
    step, before = found.step("memory"), rise_chance(case().decision.forecasts[0])
    assert (step.score, step.confidence) == (0.5, 0.4)
    assert step.sentence == (
        "12 situations like this one: 75 % rose in 15 min, +5.13 % on average; "  # exp(.05) - 1, exp(.1) - 1
        "nearest 2023-11-14 (+10.52 %), 2023-07-22 (-0.10 %). With them the forecast's "
        f"{percent(before)} to rise are {percent(before + 0.4 * (1 - before))}."
    )
    assert strict(reasoning_json(found))["recalled"]["nearest"][0] == [1_700_000_100_000_000_000, 0.5, 0.1]
    nothing = Recalled(n=0, mean_outcome=math.nan, hit_rate=math.nan, confidence=0.0, nearest=())
    none = reason(replace(case(), recalled=nothing)).step("memory")
    assert (none.score, none.confidence, none.sentence) == (0.0, 0.0, "No situation like this one is remembered.")


def test_a_missing_bar_blinds_every_component_and_breaks_nothing() -> None:
    bars = market(4_000, 5, 0.0).bars
    data = build_market(without(bars, np.arange(4_000) == 3_999))
    found = reason(case(data=data))
    assert all(found.step(name).sentence.startswith(BLIND) for name in COMPONENTS)
    assert found.conviction == 0.0
    record = strict(reasoning_json(found))
    assert record["steps"][0]["facts"]["fit"] is None
    assert len(shown(rendered(found), 120)) <= 40


def test_weights_move_the_conviction_and_nothing_else() -> None:
    data = market(8_500)
    equal = reason(case(data=data))
    heavy = max(equal.steps[: len(COMPONENTS)], key=lambda step: step.score * step.confidence)  # type: ignore[operator]
    alone = reason(replace(case(data=data), weights={**dict.fromkeys(COMPONENTS, 0.0), heavy.name: 1.0}))
    assert alone.conviction == pytest.approx(heavy.score * heavy.confidence)  # type: ignore[operator]
    assert alone.conviction > equal.conviction
    assert alone.steps == equal.steps or str(alone.steps) == str(equal.steps)  # facts may hold nan, unequal to itself
    with pytest.raises(ConfigError, match="missing or unknown"):
        reason(replace(case(data=data), weights={"regime": 1.0}))
    assert len(EQUAL_WEIGHTS) == len(COMPONENTS)


def test_numbers_in_words() -> None:
    assert [number(-0.04), number(1234.56, 1), number(math.nan)] == ["0.0", "1,234.6", "unknown"]
    assert [signed(0.04), signed(1.26), signed(-1.26), signed(math.inf)] == ["0.0", "+1.3", "-1.3", "unknown"]
    assert [percent(0.1234), percent(math.nan), signed_percent(0.001), signed_percent(-1e-9)] == [
        "12.3 %",
        "unknown",
        "+0.10 %",
        "0.00 %",
    ]
    assert [lasting(1), lasting(36), lasting(2016), lasting(28), lasting(math.nan)] == [
        "5 min",
        "3 h",
        "7 d",
        "2.3 h",
        "unknown",
    ]
    assert [counted(1, "lot"), counted(3, "lot"), capital("a B"), capital("")] == ["1 lot", "3 lots", "A B", ""]
