"""The market as a gymnasium environment, for anyone's agent; the numbers are the kernel's, step for step."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from btcai.config import BucketConfig
from btcai.errors import DataError
from btcai.features.scaling import CLIP, Scaler
from btcai.market.account import COSTS_PAID, EQUITY, N_LOTS, exposure_frac, new_accounts
from btcai.market.kernel import Rules, bar_arrays, decision_step, observe
from btcai.market.reward import TERMS
from btcai.schema import ACCOUNT_FEATURES, Action, BoolArray, FloatArray, MarketData, Span

Observation = dict[str, Any]  # "market" and "account", float32 arrays

_ACCOUNT_LOW = np.array([0, 0, -5, -5, 0, -1, 0, 0, 0], np.float32)
_ACCOUNT_HIGH = np.array([1, 1, 5, 5, 1, 1, 5, 1, 1], np.float32)


class TradingEnv(gymnasium.Env[Observation, np.int64]):
    """One account of one bucket walking a span of bars, one decision per patch of `patch_bars` 5-minute bars.

    ## Action space: Discrete(4), `schema.Action`
    | n | action | effect |
    |---|---|---|
    | 0 | HOLD | nothing |
    | 1 | BUY | opens a lot of `size_frac` of the equity at the next present bar's open |
    | 2 | SELL | closes the oldest lot there |
    | 3 | CLOSE_ALL | closes all lots there, oldest first |
    What cannot be done (no free lot, nothing to sell, an order waiting, a halt) is HOLD.

    ## Observation space: Dict, float32
    - `market` Box(-5, 5, (lookback_bars, F)): rows t - lookback_bars + 1 .. t of the features, oldest first, as
      clip((x - mean) / std, -5, 5) * mask of the scaler; the mask is the last column.
    - `account` Box((9,)): `schema.ACCOUNT_FEATURES`; fractions 0 .. 1, open returns -5 .. 5 in sigma of one patch, goal
      progress -1 .. 1, log1p(decisions since the last fill) / 5, and two flags.

    ## Reward
    Weighted sum of `reward.TERMS` over the patch: fractions of equity (net_profit: a log return), all costs included.

    ## Start of an episode
    Cash of `equity_usdt`, no lot. The first decision is at a uniformly random bar of the span that leaves room for
    `episode_decisions` (the first bar with a whole lookback inside the span when None), or at
    `reset(options={"start_bar": t})`.

    ## End of an episode
    `terminated`: equity at or below 10 % of the start's. `truncated`: `episode_decisions` made, or the next decision
    would not be paid inside the span (bootstrap the value there: the market goes on).

    ## Info
    `bar` index of the bar whose close the observation shows; `equity_usdt`, `costs_usdt` paid so far, `n_lots`,
    `exposure_frac`; after a step `reward_terms`, the unweighted terms by name.

    ## Arguments
    size_frac: share of equity a BUY opens, one number or one per bar (T,) of the data; 1 / max_lots by default.
    entry_allowed: (T,) bool, where a BUY may be decided; everywhere by default. seed: of the start bars, until
    `reset(seed=...)` sets another.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own interface)

    def __init__(
        self,
        data: MarketData,
        span: Span,
        bucket: BucketConfig,
        rules: Rules,
        scaler: Scaler,
        *,
        episode_decisions: int | None = None,
        equity_usdt: float = 100_000.0,
        size_frac: float | FloatArray | None = None,
        entry_allowed: BoolArray | None = None,
        seed: int | None = None,
    ) -> None:
        self._bars = bar_arrays(data)
        self._rules = rules
        self._span = span
        self._lookback = bucket.lookback_bars
        self._episode_decisions = episode_decisions
        self._equity_usdt = equity_usdt
        sizes = 1.0 / rules.max_lots if size_frac is None else size_frac
        self._size_frac = np.broadcast_to(np.asarray(sizes, dtype=np.float64), len(data))
        self._entry_allowed = np.broadcast_to(True if entry_allowed is None else entry_allowed, len(data))
        self._first = span.first + self._lookback - 1
        self._last = span.stop - 1 - rules.patch_bars
        if self._last < self._first:
            raise DataError(
                f"an episode needs {self._lookback + rules.patch_bars} bars (lookback + one patch), the span has "
                f"{len(span)}; use a longer span or import more history"
            )
        rows = data.features[span.first : span.stop]
        mask = rows[:, -1:]
        self._scaled = np.clip((rows - scaler.mean) / scaler.std, -CLIP, CLIP).astype(np.float32) * mask
        shape = (self._lookback, rows.shape[1])
        self.observation_space = spaces.Dict(
            {
                "market": spaces.Box(-CLIP, CLIP, shape, np.float32),
                "account": spaces.Box(_ACCOUNT_LOW, _ACCOUNT_HIGH, dtype=np.float32),
            }
        )
        self.action_space = spaces.Discrete(len(Action))
        self._seed = seed
        self._bar = self._first
        self._decisions = 0
        self._account, self._lots = new_accounts(1, rules.max_lots, equity_usdt)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; options may hold start_bar, the bar of the first decision."""
        super().reset(seed=self._seed if seed is None else seed)
        self._seed = None
        self._bar = self._start_bar(options or {})
        self._decisions = 0
        self._account, self._lots = new_accounts(1, self._rules.max_lots, self._equity_usdt)
        return self._observe(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide at the close of the current bar and walk one patch."""
        terms = np.zeros(len(TERMS))
        reward, terminated = decision_step(
            self._account[0],
            self._lots[0],
            self._bars,
            self._bar,
            int(action),
            float(self._size_frac[self._bar]),
            bool(self._entry_allowed[self._bar]),
            self._rules,
            terms,
        )
        self._bar += self._rules.patch_bars
        self._decisions += 1
        truncated = self._bar > self._last or self._decisions == self._episode_decisions
        info = self._info() | {"reward_terms": dict(zip(TERMS, terms.tolist(), strict=True))}
        return self._observe(), float(reward), bool(terminated), bool(truncated), info

    def _start_bar(self, options: dict[str, Any]) -> int:
        if "start_bar" in options:
            start = int(options["start_bar"])
            if not self._first <= start <= self._last:
                raise DataError(f"start_bar must be {self._first} .. {self._last}, was {start}")
            return start
        if self._episode_decisions is None:
            return self._first
        latest = self._last - (self._episode_decisions - 1) * self._rules.patch_bars
        return int(self.np_random.integers(self._first, max(self._first, latest) + 1))

    def _observe(self) -> Observation:
        account = np.empty(len(ACCOUNT_FEATURES), np.float32)
        observe(self._account[0], self._lots[0], self._bars, self._bar, self._rules, account)
        stop = self._bar + 1 - self._span.first
        return {
            "market": self._scaled[stop - self._lookback : stop].copy(),
            "account": np.clip(account, _ACCOUNT_LOW, _ACCOUNT_HIGH),
        }

    def _info(self) -> dict[str, Any]:
        account, lots = self._account[0], self._lots[0]
        return {
            "bar": self._bar,
            "equity_usdt": float(account[EQUITY]),
            "costs_usdt": float(account[COSTS_PAID]),
            "n_lots": int(account[N_LOTS]),
            "exposure_frac": float(exposure_frac(account, lots, self._bars.mark[self._bar])),
        }
