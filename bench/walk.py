"""Accounts that walk a market under random actions on some threads: the work that `btcai bench env` times."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from bench.references.bare_loop import EPISODE_BARS, JUMP_ACCOUNT, JUMP_BAR, bare_accounts, bare_prices, step_bare
from btcai.compiled import stepping
from btcai.market.account import N_LOTS, new_accounts
from btcai.market.bars import BarArrays
from btcai.market.kernel import step_accounts
from btcai.market.reward import TERMS
from btcai.market.rules import Rules
from btcai.schema import Action, BoolArray, FloatArray, IntArray

UNIFORM = (0.25, 0.25, 0.25, 0.25)
"""Probabilities of the four actions."""

HOARDING = (0.2, 0.4, 0.399, 0.001)
"""Buys and sells in balance and hardly ever a close-all: many lots stand open."""

_CYCLE = 256
"""Rows of actions before they repeat: a million draws, more than any branch predictor remembers."""

_EQUITY_USDT = 100_000.0


class Walk(ABC):
    """`decisions` decisions of n accounts a run, split evenly over threads; each run goes on where the last ended."""

    def __init__(self, n: int, decisions: int, threads: int, probabilities: tuple[float, ...], patch_bars: int) -> None:
        rng = np.random.default_rng(0)
        self._decisions = decisions
        self._env_steps = n * decisions * patch_bars
        self._actions = rng.choice(len(Action), size=(_CYCLE, n), p=probabilities).astype(np.int64)
        edges = np.linspace(0, n, threads + 1).astype(int).tolist()
        self._shares = list(pairwise(edges))

    def run(self) -> float:
        """Walk; returns env steps (accounts x bars)."""
        with ThreadPoolExecutor(len(self._shares)) as pool:
            for done in [pool.submit(self._walk, first, stop) for first, stop in self._shares]:
                done.result()
        return self._env_steps

    def _walk(self, first: int, stop: int) -> None:
        for decision in range(self._decisions):
            self._step(self._actions[decision % _CYCLE], first, stop)

    @abstractmethod
    def _step(self, actions: IntArray, first: int, stop: int) -> None:
        """One decision of accounts first .. stop - 1."""


class AccountWalk(Walk):
    """The market's full execution model; finished accounts start afresh at another bar."""

    def __init__(
        self,
        bars: BarArrays,
        rules: Rules,
        n: int,
        decisions: int,
        threads: int,
        probabilities: tuple[float, ...] = UNIFORM,
    ) -> None:
        super().__init__(n, decisions, threads, probabilities, rules.patch_bars)
        self._bars, self._rules = bars, rules
        self.accounts, self._lots = new_accounts(n, rules.max_lots, _EQUITY_USDT, np.arange(n, dtype=np.float64))
        self._fresh = self.accounts.copy()
        self._t = start_bars(len(bars.open), rules.patch_bars, n)
        self._size_frac, self._entry_allowed = np.full(n, 1.0 / rules.max_lots), np.ones(n, np.bool_)
        self._reward, self._terminated, self._terms = np.zeros(n), np.zeros(n, np.bool_), np.zeros((n, len(TERMS)))

    @property
    def mean_lots(self) -> float:
        """Open lots of an account now."""
        return float(self.accounts[:, N_LOTS].mean())

    def _step(self, actions: IntArray, first: int, stop: int) -> None:
        step_accounts(
            self.accounts,
            self._lots,
            self._bars,
            self._t,
            actions,
            self._size_frac,
            self._entry_allowed,
            self._rules,
            self._reward,
            self._terminated,
            self._terms,
            first,
            stop,
        )
        _advance(
            self.accounts,
            self._fresh,
            self._t,
            self._terminated,
            len(self._bars.open),
            self._rules.patch_bars,
            EPISODE_BARS,
            JUMP_BAR,
            JUMP_ACCOUNT,
            first,
            stop,
        )


class BareWalk(Walk):
    """The bare single-position loop, one decision a bar, at the fees, the spread and the stop of `rules`."""

    def __init__(self, bars: BarArrays, rules: Rules, n: int, decisions: int, threads: int, ahead: int = 0) -> None:
        super().__init__(n, decisions, threads, UNIFORM, patch_bars=1)
        traded = (np.where(bars.present, prices, bars.mark) for prices in (bars.open, bars.high, bars.low, bars.mark))
        self._prices = bare_prices(*traded)
        self._rules, self._ahead = rules, ahead
        self._accounts = bare_accounts(start_bars(len(bars.open), 1, n))

    def _step(self, actions: IntArray, first: int, stop: int) -> None:
        fee, spread, loss = self._rules.taker_fee_frac, self._rules.half_spread_frac, self._rules.stop_loss_frac
        step_bare(self._accounts, self._prices, actions, fee, spread, loss, self._ahead, first, stop)


def start_bars(n_bars: int, patch_bars: int, n: int) -> IntArray:
    """Random bars (n,) that leave room for a decision."""
    return np.random.default_rng(1).integers(0, n_bars - patch_bars - 1, n)


@stepping
def _advance(
    accounts: FloatArray,
    fresh: FloatArray,
    t: IntArray,
    terminated: BoolArray,
    n_bars: int,
    patch_bars: int,
    episode_bars: int,
    jump_bar: int,
    jump_account: int,
    first: int,
    stop: int,
) -> None:
    """Move t by one patch; a finished account takes its row of `fresh` and another bar, as in the bare loop."""
    for i in range(first, stop):
        bar = t[i] + patch_bars
        if terminated[i] or bar + patch_bars >= n_bars or bar % episode_bars < patch_bars:
            bar = (bar * jump_bar + i * jump_account) % (n_bars - patch_bars - 1)
            for column in range(accounts.shape[1]):
                accounts[i, column] = fresh[i, column]
        t[i] = bar
