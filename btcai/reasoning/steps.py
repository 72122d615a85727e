"""The steps of a chain after the components: each takes what was decided on, and says it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from btcai.config import BucketConfig, SizingConfig
from btcai.market.account import (
    COOL_DOWN,
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    HELD_BTC,
    LOT_ENTRY_PRICE,
    N_LOTS,
    NO_ORDER,
    PENDING,
    SINCE_TRADE,
    drawdown_frac,
    exposure_frac,
    lot_row,
)
from btcai.market.risk import DRAWDOWN_HALT, NO_HALT, can_buy, can_sell
from btcai.market.rules import Rules
from btcai.market.sizing import lot_sizes
from btcai.reasoning.memory import adjusted_chance
from btcai.reasoning.records import Recalled, Step
from btcai.reasoning.words import capital, counted, lasting, number, percent, signed, signed_percent
from btcai.schema import QUANTILE_LEVELS, Action, Decision, FloatArray, Forecast, simple_return

BLIND = "Nothing to go by: the bar is missing, or too many of those before it."
INTERVAL = f"{QUANTILE_LEVELS[-1] - QUANTILE_LEVELS[0]:.0%}".replace("%", " %")


def with_lots(
    step: Step,
    account: FloatArray,
    lots: FloatArray,
    mark: float,
    sigma: float,
    forecasts: Sequence[Forecast],
    rules: Rules,
) -> Step:
    """The exit step with what the oldest lot adds: its return, how far stop and target are, how long, what is forecast.

    Distances in sigmas of one patch; below 0 once the mark has passed the level, nan of a level that is off.
    """
    if account[N_LOTS] == 0.0:
        return replace(step, sentence=f"{step.sentence} No lot is open.", facts={**step.facts, "lots": 0.0})
    side, sigma_patch = math.copysign(1.0, account[HELD_BTC]), sigma * math.sqrt(rules.patch_bars)
    entry = float(lots[lot_row(account, lots, 0), LOT_ENTRY_PRICE])
    stop, target = stop_and_target(entry, side, rules)
    facts = {
        "lots": float(account[N_LOTS]),
        "oldest_return_frac": side * (mark / entry - 1.0),
        "stop_sigmas": -side * _log_ratio(stop, mark) / sigma_patch,
        "target_sigmas": side * _log_ratio(target, mark) / sigma_patch,
        "decisions_since_trade": float(account[SINCE_TRADE]),
        "adverse_chance": 0.5 - side * (rise_chance(forecasts[0]) - 0.5),
    }
    since = lasting(facts["decisions_since_trade"] * rules.patch_bars)
    filled = f"last fill {since} ago; " if facts["decisions_since_trade"] else ""  # 0 also where nobody told it
    told = (
        f"The oldest of {counted(facts['lots'], 'lot')} stands at {signed_percent(facts['oldest_return_frac'])}, "
        f"{_level('stop', facts['stop_sigmas'])}, {_level('target', facts['target_sigmas'])}; {filled}"
        f"{percent(facts['adverse_chance'])} to move against it in {lasting(forecasts[0].horizon_bars)}."
    )
    return replace(step, sentence=f"{step.sentence} {told}", facts={**step.facts, **facts})


def stop_and_target(entry: float, side: float, rules: Rules) -> tuple[float, float]:
    """Prices in USDT that close a lot, side 1 long or -1 short; nan of a level that is off."""
    fracs = (-rules.stop_loss_frac, rules.take_profit_frac)
    stop, target = (entry * (1.0 + side * frac) if frac else math.nan for frac in fracs)
    return stop, target


def lots_past_stop(account: FloatArray, lots: FloatArray, mark: float, rules: Rules) -> int:
    """How many open lots the mark has left beyond their stop: the rules would have closed each of them by then."""
    side = math.copysign(1.0, account[HELD_BTC])
    entries = (lots[lot_row(account, lots, k), LOT_ENTRY_PRICE] for k in range(int(account[N_LOTS])))
    return sum(side * mark < side * stop_and_target(float(entry), side, rules)[0] for entry in entries)


def _log_ratio(level: float, mark: float) -> float:
    return math.log(level / mark) if level > 0.0 else math.nan


def _level(name: str, sigmas: float) -> str:
    if not math.isfinite(sigmas):
        return f"no {name}"
    return f"{name} {number(sigmas)} sigma away" if sigmas >= 0.0 else f"{name} passed by {number(-sigmas)} sigma"


def rise_chance(forecast: Forecast) -> float:
    """Chance of a return above 0, as sizing reads a forecast: that of a normal one; a half of one that is no number."""
    if not (math.isfinite(forecast.mean) and math.isfinite(forecast.std) and forecast.std > 0.0):
        return 0.5
    return 0.5 * math.erfc(-forecast.mean / (forecast.std * math.sqrt(2.0)))


def forecast(decision: Decision, sigma: float, limits: SizingConfig) -> Step:
    """Calibrated forecasts; score and confidence are of the shortest horizon, which sizes the lot.

    confidence: what its uncertainty and the market's unfamiliarity leave of their limits. The facts are log returns, as
    the bundle puts them out; the sentence says simple ones.
    """
    first = decision.forecasts[0]
    sure = max(0.0, 1.0 - uncertainty(first, sigma) / limits.max_uncertainty)  # nan is not sure
    familiar = max(0.0, 1.0 - decision.unfamiliarity / limits.max_unfamiliarity)
    facts: dict[str, float] = {}
    told = []
    for one in decision.forecasts:
        low, high, chance = one.quantiles[0], one.quantiles[-1], rise_chance(one)
        named = {"mean": one.mean, "std": one.std, "low": low, "high": high, "rise_chance": chance}
        facts |= {f"{name}_{one.horizon_bars}": value for name, value in named.items()}
        said = one.simple
        ends = f"{signed_percent(said.quantiles[0])} to {signed_percent(said.quantiles[-1])}"
        told.append(f"{lasting(one.horizon_bars)} {signed_percent(said.mean)}, {ends}, {percent(chance)}")
    form = " (adaptive)" if decision.intervals == "adaptive" else ""
    return Step(
        name="forecast",
        score=2.0 * rise_chance(first) - 1.0,
        confidence=min(1.0, sure * familiar),
        sentence=f"Mean return, its {INTERVAL} interval{form} and chance to rise: {'; '.join(told)}.",
        facts=facts,
    )


def uncertainty(forecast: Forecast, sigma: float) -> float:
    """Predicted standard deviation over sigma * sqrt(horizon): above 1 the model expects more than the day showed."""
    return forecast.std / (sigma * math.sqrt(forecast.horizon_bars))


def memory(recalled: Recalled | None, forecast: Forecast) -> Step:
    """Situations like this one, and what the forecast's chance to rise is with them; without a memory, or any like it,
    nothing.

    The facts are log returns; the sentence says simple ones, on average the geometric mean.
    """
    if recalled is None or recalled.n == 0:
        said = "No situation like this one is remembered." if recalled else "No memory is kept of earlier situations."
        return Step(name="memory", score=0.0, confidence=0.0, sentence=said, facts={"n": 0.0})
    days = ", ".join(
        f"{datetime.fromtimestamp(close_ts_ns // 1_000_000_000, UTC):%Y-%m-%d} ({_simple_percent(outcome)})"
        for close_ts_ns, _, outcome in recalled.nearest[:3]
    )
    lean = math.copysign(recalled.confidence, recalled.hit_rate - 0.5)
    adjusted = adjusted_chance(rise_chance(forecast), lean)
    return Step(
        name="memory",
        score=2.0 * recalled.hit_rate - 1.0,
        confidence=recalled.confidence,
        sentence=(
            f"{counted(recalled.n, 'situation')} like this one: {percent(recalled.hit_rate, 0)} rose in "
            f"{lasting(forecast.horizon_bars)}, {_simple_percent(recalled.mean_outcome)} on average"
            + (f"; nearest {days}." if days else ".")
            + f" With them the forecast's {percent(rise_chance(forecast))} to rise are {percent(adjusted)}."
        ),
        facts={
            "n": float(recalled.n),
            "mean_outcome": recalled.mean_outcome,
            "hit_rate": recalled.hit_rate,
            "adjusted_rise_chance": adjusted,
            "nearest_distance": recalled.nearest[0][1] if recalled.nearest else math.nan,
        },
    )


def _simple_percent(log_return: float) -> str:
    return signed_percent(simple_return(log_return))


def spoken(action: Action) -> str:
    """CLOSE_ALL -> "close all"."""
    return action.name.lower().replace("_", " ")


def policy(decision: Decision) -> Step:
    """The network's probabilities of the four actions and its value; score: of buying less selling and closing."""
    chances = decision.probabilities
    order = sorted(Action, key=lambda action: -chances[action])
    told = ", ".join(f"{spoken(action)} {percent(chances[action])}" for action in order)
    return Step(
        name="policy",
        score=chances[Action.BUY] - chances[Action.SELL] - chances[Action.CLOSE_ALL],
        confidence=max(chances),
        sentence=f"{capital(told)}; expected reward from here {signed(decision.value, 4)}.",
        facts={**{spoken(action).replace(" ", "_"): chances[action] for action in Action}, "value": decision.value},
    )


def sizing(decision: Decision, sigma: float, bucket: BucketConfig, config: SizingConfig) -> Step:
    """What a BUY may open, whether or not one was wanted: market.sizing on the shortest forecast."""
    first = decision.forecasts[0]
    size_frac, allowed = lot_sizes(
        np.array([first.mean]),
        np.array([first.std]),
        np.array([sigma]),
        np.array([decision.unfamiliarity]),
        first.horizon_bars,
        bucket.max_lots,
        config,
    )
    facts = {
        "lot_frac": float(size_frac[0]),
        "allowed": float(allowed[0]),
        "uncertainty": uncertainty(first, sigma),
        "max_uncertainty": config.max_uncertainty,
        "unfamiliarity": decision.unfamiliarity,
        "max_unfamiliarity": config.max_unfamiliarity,
    }
    verdict = f"a lot may hold {percent(facts['lot_frac'], 2)} of equity" if facts["allowed"] else "no lot is allowed"
    return Step(
        name="sizing",
        score=None,
        confidence=None,
        sentence=(
            f"{capital(config.strategy.replace('_', ' '))}: {verdict}; uncertainty {number(facts['uncertainty'], 2)} "
            f"of at most {config.max_uncertainty:g}, unfamiliarity {number(decision.unfamiliarity, 2)} of at most "
            f"{config.max_unfamiliarity:g}."
        ),
        facts=facts,
    )


def risk(account: FloatArray, rules: Rules) -> Step:
    """Limits of market.risk beside where the account stands."""
    equity = float(account[EQUITY])
    facts = {
        "equity_usdt": equity,
        "exposure_frac": float(exposure_frac(account)),
        "lots": float(account[N_LOTS]),
        "drawdown_frac": float(drawdown_frac(account)),
        "day_frac": equity / float(account[DAY_START_EQUITY]) - 1.0,
        "halt": float(account[HALT]),
        "halt_bars": float(account[COOL_DOWN]),
        "order_pending": float(account[PENDING] != NO_ORDER),
        "can_buy": float(can_buy(account, rules)),
        "can_sell": float(can_sell(account, rules)),
    }
    kind = "drawdown" if account[HALT] == DRAWDOWN_HALT else "daily"
    bars = lasting(facts["halt_bars"])
    least = "at least " if kind == "drawdown" and account[N_LOTS] > 0 else ""  # until no lot is left
    halt = "No halt" if account[HALT] == NO_HALT else f"A {kind} halt for {least}{bars} more"
    may = [f"may {'' if facts[f'can_{verb}'] else 'not '}{verb}" for verb in ("buy", "sell")]
    return Step(
        name="risk",
        score=None,
        confidence=None,
        sentence=(
            f"{halt}{', an order waits' if facts['order_pending'] else ''}; exposure {percent(facts['exposure_frac'])} "
            f"of at most {percent(rules.max_exposure_frac, 0)}, {counted(facts['lots'], 'lot')} of {rules.max_lots}; "
            f"drawdown {percent(facts['drawdown_frac'])}, halts at {percent(rules.drawdown_halt_frac, 0)}; the day "
            f"{signed_percent(facts['day_frac'])}, halts at {signed_percent(-rules.daily_loss_halt_frac, 0)}; "
            f"{', '.join(may)}."
        ),
        facts=facts,
    )


def decision(decision: Decision) -> Step:
    """What is done, and why it is not what the policy wanted where it is not."""
    wanted = Action(int(np.argmax(decision.probabilities)))
    opens = decision.size_frac > 0.0
    done = capital(spoken(decision.action)) + (f" a lot of {percent(decision.size_frac, 2)} of equity" if opens else "")
    if decision.action is wanted:
        why = f": {decision.note}" if decision.note else ": what the policy finds likeliest"
    else:
        why = f", not {spoken(wanted)} as the policy wants: {decision.note or 'the rules do not take it'}"
    side = {Action.HOLD: 0.0, Action.BUY: 1.0, Action.SELL: -1.0, Action.CLOSE_ALL: -1.0}[decision.action]
    return Step(
        name="decision",
        score=side,
        confidence=decision.probabilities[decision.action],
        sentence=f"{done}{why}.",
        facts={"action": float(decision.action), "size_frac": decision.size_frac},
    )
