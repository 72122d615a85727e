"""Accounts walking stretches of market with the head alone: one compiled call for every env step of an update."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btcai.agent.head_weights import HeadWeights
from btcai.agent.task import Task
from btcai.compiled import compiled, inlined
from btcai.market.account import (
    CASH,
    DAY,
    DAY_START_EQUITY,
    EQUITY,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_SIZE_BTC,
    LOWEST_ENTRY,
    NO_ENTRY,
    PEAK_EQUITY,
    SEED,
    SINCE_TRADE,
    START_EQUITY,
    new_accounts,
    set_lots,
)
from btcai.market.bars import BarArrays
from btcai.market.kernel import decision_step, observe
from btcai.market.reward import TERMS, return_weight
from btcai.market.rules import Rules
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, Action, BoolArray, Float32Array, FloatArray, IntArray

N_ACTIONS = len(Action)
CASH_FRAC, LOTS_FRAC = ACCOUNT_FEATURES.index("cash_frac"), ACCOUNT_FEATURES.index("lots_frac")
DRAWDOWN_FRAC, GOAL_PROGRESS = ACCOUNT_FEATURES.index("drawdown_frac"), ACCOUNT_FEATURES.index("goal_progress")
MOST_DECISIONS = 20_000
"""Since the last trade of an account that training starts with."""
LEAST_GAIN = 0.25
"""Equity over that at the start, of an account that training starts with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """What S x G accounts saw and did over M - 1 transitions; the last observation only bootstraps.

    observation (S, G, M, A) float32; value (S, G, M); action, logp, reward, terminated (S, G, M - 1);
    terms (S, G, M - 1, 6): the reward's named terms; size_frac (S, M - 1): of a lot, 0 where none may be opened.
    """

    observation: Float32Array
    value: Float32Array
    action: NDArray[np.int64]
    logp: Float32Array
    reward: FloatArray
    terminated: BoolArray
    terms: FloatArray
    size_frac: FloatArray


class _Stretches(NamedTuple):
    """decision_bars, size_frac, entry_allowed (S, M) and projected (S, M, hidden), as `walk` takes them."""

    decision_bars: IntArray
    projected: Float32Array
    size_frac: FloatArray
    entry_allowed: BoolArray


class _Buffers(NamedTuple):
    """The arrays of a Rollout as they are filled, accounts one after the other, (S x G, ...); named again because numba
    takes tuples and no dataclasses."""

    observation: Float32Array
    value: Float32Array
    action: NDArray[np.int64]
    logp: Float32Array
    reward: FloatArray
    terminated: BoolArray
    terms: FloatArray


def joined(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts over stretches one after the other."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Rollout)}
    return Rollout(**{name: np.concatenate(column) for name, column in columns.items()})


def intended_exposure_frac(rollout: Rollout, max_lots: int) -> FloatArray:
    """BTC held over equity while a decision's return is earned, as it is known when deciding, (S, G, M - 1).

    What is held, plus the lot that is bought (sold: short) or less the lot that is closed; fills and stops may make it
    another, but those are part of what is not known yet.
    """
    seen = rollout.observation[:, :, :-1].astype(np.float64)
    lots = seen[..., LOTS_FRAC] * max_lots
    held = np.sign(lots) * (1.0 - seen[..., CASH_FRAC])
    lot = held / np.maximum(np.abs(lots), 1.0)
    opened = np.where(np.abs(lots) < max_lots, rollout.size_frac[:, None], 0.0)
    change = np.zeros_like(held)
    change = np.where(rollout.action == Action.BUY, np.where(lots < 0, -lot, opened), change)
    change = np.where(rollout.action == Action.SELL, np.where(lots > 0, -lot, -opened), change)
    change = np.where(rollout.action == Action.CLOSE_ALL, -held, change)
    return held + change


def reward_sensitivity(rollout: Rollout, rules: Rules) -> FloatArray:
    """What a decision's reward is paid for the market's return, as it is known when deciding, (S, G, M - 1).

    The exposure where the reward is the log return of equity alone.
    """
    drawdown, progress = np.moveaxis(rollout.observation[:, :, :-1, [DRAWDOWN_FRAC, GOAL_PROGRESS]], -1, 0)
    weight = return_weight(drawdown.astype(np.float64), progress.astype(np.float64), rules)
    return intended_exposure_frac(rollout, rules.max_lots) * weight


def without_surprise(
    reward: FloatArray, exposure: FloatArray, surprise: FloatArray, share: float
) -> tuple[FloatArray, float]:
    """Rewards (S, G, K) less what the market's surprises made of them, and the share of their variance that this was.

    exposure (S, G, K): reward_sensitivity; surprise (S, K): return to the next decision less its forecast. Their
    product has mean zero whatever was decided, if the forecast is right on average, so it is a control variate of the
    reward (Glasserman 2004, section 4.1): its coefficient is fitted to the update, and `share` of it is taken out. It
    is what the market paid for it, so the coefficient is at most 1: a forecast that is too timid misses a part of what
    it foresaw, and a fit would take out all of that as a multiple of this part. Where the forecast is wrong, so is what
    is left, by the exposure times that error. It is the action-dependent relative of input-dependent baselines
    (Mao et al. 2019, arXiv 1807.02264), which take out what surprises do to all actions alike: here they do most to
    the difference between holding and not.
    """
    control = exposure * surprise[:, None]
    square = float((control**2).mean())
    coefficient = min(1.0, float((control * reward).mean()) / square) if square > 0 else 0.0
    cleaned = reward - share * coefficient * control
    variance = float(reward.var())
    return cleaned, 1.0 - float(cleaned.var()) / variance if variance > 0 else 0.0


def walk(
    task: Task,
    decision_bars: IntArray,
    projected: Float32Array,
    head: HeadWeights,
    size_frac: FloatArray,
    entry_allowed: BoolArray,
    agents: int,
    rng: np.random.Generator | None,
) -> Rollout:
    """Walk `agents` accounts along each stretch; rng None is greedy from a flat account, else sampled from mixed ones.

    decision_bars, size_frac, entry_allowed (S, M); projected (S, M, hidden) the head's market half per decision time.
    """
    s, m = decision_bars.shape
    account, lots = new_accounts(s * agents, task.rules.max_lots, task.equity_usdt)
    if rng is None:
        uniform = np.zeros((s * agents, m - 1))
    else:
        uniform = rng.random((s * agents, m - 1))
        account[:, SEED] = rng.integers(2**32, size=s * agents)
        randomise_accounts(account, lots, task, decision_bars[:, 0].repeat(agents), size_frac[:, 0].repeat(agents), rng)
    shape = (s * agents, m - 1)
    buffers = _Buffers(
        observation=np.zeros((s * agents, m, len(ACCOUNT_FEATURES)), np.float32),
        value=np.zeros((s * agents, m), np.float32),
        action=np.zeros(shape, np.int64),
        logp=np.zeros(shape, np.float32),
        reward=np.zeros(shape),
        terminated=np.zeros(shape, np.bool_),
        terms=np.zeros((*shape, len(TERMS))),
    )
    stretches = _Stretches(decision_bars, projected, size_frac, entry_allowed)
    _walk(task.bars, task.rules, stretches, head, uniform, rng is None, task.equity_usdt, account, lots, buffers)
    folded = {name: column.reshape(s, agents, *column.shape[1:]) for name, column in buffers._asdict().items()}
    return Rollout(**folded, size_frac=np.where(entry_allowed, size_frac, 0.0)[:, :-1])


def randomise_accounts(
    account: FloatArray, lots: FloatArray, task: Task, bar: IntArray, size_frac: FloatArray, rng: np.random.Generator
) -> None:
    """Give fresh accounts a past, so that training meets every account that long play leads to.

    Half hold 1 .. max_lots open lots (half of these short ones where that is allowed), entered around the mark as if up
    to ten patches ago, neither stopped nor at their target; every one has a drawdown, a gain or loss since its start
    and a time since its last trade. Equity at the mark stays what it was.
    """
    n, rules = len(account), task.rules
    mark, sigma = task.bars.mark[bar], task.bars.sigma[bar]
    share = np.minimum(size_frac, rules.max_exposure_frac / rules.max_lots)
    n_lots = np.where((rng.random(n) < 0.5) & (share > 0), rng.integers(1, rules.max_lots + 1, n), 0)
    side = np.where(rng.random(n) < 0.5, -1.0, 1.0)[:, None] if rules.allow_short else np.ones((n, 1))
    moved = rng.standard_normal((n, rules.max_lots)) * (sigma * (10 * rules.patch_bars) ** 0.5)[:, None]
    worst = -0.99 * rules.stop_loss_frac if rules.stop_loss_frac > 0 else -0.9
    best = 0.99 * rules.take_profit_frac if rules.take_profit_frac > 0 else 0.9
    price_ratio = 1.0 + side * np.clip(moved, worst, best)  # mark / entry
    is_open = np.arange(rules.max_lots) < n_lots[:, None]
    lots[..., LOT_BTC] = np.where(is_open, side * (share * account[:, EQUITY] / mark)[:, None], 0.0)
    lots[..., LOT_ENTRY_PRICE] = np.where(is_open, mark[:, None] / price_ratio, 0.0)
    lots[..., LOT_SIZE_BTC] = lots[..., LOT_BTC]
    lots[..., LOT_COST_USDT] = np.abs(lots[..., LOT_BTC]) * lots[..., LOT_ENTRY_PRICE]
    lots[..., LOT_ENTRY_BAR] = bar[:, None]
    for i in range(n):
        set_lots(account[i], lots[i], int(n_lots[i]))
    account[:, CASH] -= lots[..., LOT_BTC].sum(1) * mark
    # Squared and log-uniform: most accounts are near their peak and traded lately, some are far from either.
    drawdown = rng.random(n) ** 2 * 0.9 * min(rules.drawdown_halt_frac, 0.5)
    account[:, PEAK_EQUITY] = account[:, EQUITY] / (1.0 - drawdown)
    account[:, SINCE_TRADE] = np.floor(np.exp(rng.random(n) * np.log(MOST_DECISIONS)))
    if rules.compound:  # else lots are shares of the start's equity, which has to stay
        gained = rules.goal_frac * rng.uniform(-0.5, 1.2, n)  # half of a goal above 200 % cannot be lost
        account[:, START_EQUITY] = account[:, EQUITY] / np.maximum(LEAST_GAIN, 1.0 + gained)


@compiled
def _restart(account: FloatArray, equity_usdt: float) -> None:
    """A ruined account begins again in cash."""
    day, seed = account[DAY], account[SEED]
    account[:] = 0.0
    account[CASH] = equity_usdt
    account[START_EQUITY] = equity_usdt
    account[EQUITY] = equity_usdt
    account[PEAK_EQUITY] = equity_usdt
    account[DAY_START_EQUITY] = equity_usdt
    account[DAY] = day
    account[LOWEST_ENTRY] = NO_ENTRY
    account[SEED] = seed


@inlined
def _head(projected: Float32Array, observation: Float32Array, head: HeadWeights, logits: Float32Array) -> float:
    """Masked logits into `logits` (4,); returns the value. The same sums as ActorCriticHead.act."""
    value = np.float64(head.value_bias[0])  # summed with less rounding than in torch
    for a in range(N_ACTIONS):
        logits[a] = head.policy_bias[a]
    for j in range(projected.shape[0]):
        hidden = projected[j]
        for k in range(observation.shape[0]):
            hidden += observation[k] * head.account[k, j]
        if not hidden <= 0:  # nan passes
            value += hidden * head.value[j]
            for a in range(N_ACTIONS):
                logits[a] += hidden * head.policy[a, j]
    if observation[CAN_BUY] == 0:
        logits[1] = -np.inf
    if observation[CAN_SELL] == 0:
        logits[2] = -np.inf
        logits[3] = -np.inf
    return value


@compiled
def _choose(logits: Float32Array, uniform: float, greedy: bool) -> tuple[int, float]:
    """The action (argmax, or the inverse CDF at `uniform`) and its log probability."""
    top = logits.max()
    total = 0.0
    for a in range(N_ACTIONS):
        total += np.exp(logits[a] - top)
    chosen = 0
    if greedy:
        chosen = int(np.argmax(logits))
    else:
        left = uniform * total
        for a in range(N_ACTIONS):
            weight = np.exp(logits[a] - top)
            if weight > 0:
                chosen = a
                if left < weight:
                    break
            left -= weight
    return chosen, logits[chosen] - top - np.log(total)


@compiled
def _walk(
    bars: BarArrays,
    rules: Rules,
    stretches: _Stretches,
    head: HeadWeights,
    uniform: FloatArray,
    greedy: bool,
    equity_usdt: float,
    account: FloatArray,
    lots: FloatArray,
    buffers: _Buffers,
) -> None:
    n_stretches, m = stretches.decision_bars.shape
    agents = len(account) // n_stretches
    for i in range(len(account)):
        s = i // agents
        logits = np.empty(N_ACTIONS, np.float32)
        for k in range(m):
            t = stretches.decision_bars[s, k]
            seen = buffers.observation[i, k]
            observe(account[i], lots[i], bars, t, rules, seen)
            buffers.value[i, k] = _head(stretches.projected[s, k], seen, head, logits)
            if k == m - 1:
                break
            action, buffers.logp[i, k] = _choose(logits, uniform[i, k], greedy)
            buffers.action[i, k] = action
            buffers.reward[i, k], buffers.terminated[i, k] = decision_step(
                account[i], lots[i], bars, t, action, stretches.size_frac[s, k], stretches.entry_allowed[s, k], rules,
                buffers.terms[i, k],
            )  # fmt: skip
            if buffers.terminated[i, k]:
                _restart(account[i], equity_usdt)
