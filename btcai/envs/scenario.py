"""What the accounts of an environment share: a span of a market, a bucket's rules, sizes, and where episodes begin."""

import operator
from functools import cached_property
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import sliding_window_view

from btcai.config import Config
from btcai.errors import ConfigError, DataError
from btcai.features.scaling import CLIP, Scaler, fit_scaler
from btcai.features.splits import make_splits
from btcai.market.account import CASH, COSTS_PAID, EQUITY, FUNDING_PAID, N_LOTS, TRANSFERRED
from btcai.market.bars import bar_arrays
from btcai.market.rules import Rules, make_rules
from btcai.schema import TOKENS, Action, BoolArray, Float32Array, FloatArray, IntArray, MarketData, Span

ACCOUNT_LOW = np.array([-5, -1, -5, -5, 0, -1, 0, 0, 0], np.float32)
ACCOUNT_HIGH = np.array([1, 1, 5, 5, 1, 1, 5, 1, 1], np.float32)
"""Bounds of schema.ACCOUNT_FEATURES."""

_SEEDS = 2**32


class Scenario:
    """One bucket's rules on one span of a market; any number of environments share its arrays.

    Arguments
    - data: the market (features/pipeline.build_market). Decisions, fills and lookbacks all lie inside `span`.
    - rules: market/rules.make_rules, or FREE_RULES._replace(...). A decision is taken every `rules.patch_bars` bars and
      sees `lookback_bars` = 144 patches.
    - scaler: of the features, fitted on the span that is trained on (features/scaling.fit_scaler).
    - episode_decisions: length of an episode, to the span's end when None.
    - equity_usdt: cash at the start of an episode.
    - size_frac: share of the equity that a lot takes, one number or (T,), one per bar of the data; an equal share of
      the exposure cap per lot when None.
    - entry_allowed: (T,) bool, the bars at whose close a lot may be ordered; all when None.

    Raises DataError or ConfigError, in one line, where these do not fit together.
    """

    def __init__(
        self,
        data: MarketData,
        span: Span,
        rules: Rules,
        scaler: Scaler,
        *,
        episode_decisions: int | None = None,
        equity_usdt: float = 100_000.0,
        size_frac: float | FloatArray | None = None,
        entry_allowed: BoolArray | None = None,
    ) -> None:
        _check_rules(rules)
        if not equity_usdt > 0 or not np.isfinite(equity_usdt):
            raise ConfigError(f"equity_usdt must be a positive number, was {equity_usdt}; give the account some cash")
        self.rules = rules
        self.equity_usdt = float(equity_usdt)
        self.episode_decisions = episode_decisions
        self.lookback_bars = TOKENS * rules.patch_bars
        self.span = span
        self.first_bar = span.first + self.lookback_bars - 1
        """Of the first decision whose lookback lies in the span."""
        self.last_bar = span.stop - 1 - rules.patch_bars
        """Of the last decision whose period lies in the span."""
        self._check_span(data)
        self.last_start_bar = self.last_bar - ((episode_decisions or 1) - 1) * rules.patch_bars
        self.bars = bar_arrays(data)
        self.close_ts_ns = data.bars.close_ts_ns
        self.size_frac = self._per_bar(rules.max_exposure_frac / rules.max_lots if size_frac is None else size_frac)
        self.entry_allowed = self._allowed(entry_allowed)
        self._rows = self._scaled_rows(data, scaler)

    @classmethod
    def from_config(
        cls,
        config: Config,
        bucket: str,
        data: MarketData,
        span: Span | None = None,
        *,
        episode_decisions: int | None = None,
    ) -> Self:
        """As params.yaml says: the bucket's rules, the market's costs and equity; on the training span when None.

        The scaler is always fitted on the training span: what comes after it stays unseen.
        """
        if bucket not in config.buckets:
            raise ConfigError(f"bucket must be one of {', '.join(config.buckets)}, was {bucket}; see params.yaml")
        train = make_splits(len(data), config.splits, config.purge_bars, data.warmup_bars).train
        return cls(
            data,
            train if span is None else span,
            make_rules(config.buckets[bucket], config.market, config.risk),
            fit_scaler(data.features, train),
            episode_decisions=episode_decisions,
            equity_usdt=config.market.equity_usdt,
        )

    def new_spaces(self) -> tuple[spaces.Dict, spaces.Discrete]:
        """Of observations and of actions of one account; each space samples from a generator of its own."""
        market = spaces.Box(-CLIP, CLIP, (self.lookback_bars, self._rows.shape[1]), np.float32)
        account = spaces.Box(ACCOUNT_LOW, ACCOUNT_HIGH, dtype=np.float32)
        return spaces.Dict({"market": market, "account": account}), spaces.Discrete(len(Action))

    def start(self, rng: np.random.Generator, options: dict[str, Any] | None) -> tuple[int, int]:
        """(bar of the first decision, seed of the account's random transfers), two draws of the episode's generator."""
        latest = self.first_bar if self.episode_decisions is None else self.last_start_bar
        bar, seed = int(rng.integers(self.first_bar, latest + 1)), int(rng.integers(_SEEDS))
        if options is None or "start_bar" not in options:
            return bar, seed
        chosen = int(options["start_bar"])
        if not self.first_bar <= chosen <= self.last_bar:
            raise DataError(f"start_bar must be {self.first_bar} .. {self.last_bar}, was {chosen}; choose one of these")
        return chosen, seed

    def is_over(self, bar: Any, decisions: Any) -> Any:
        """Whether the episode is truncated before a decision at `bar`, after so many: of one account, or (N,) of N."""
        return (bar > self.last_bar) | (decisions == (self.episode_decisions or -1))

    def market_windows(self, bar: IntArray) -> Float32Array:
        """Scaled features up to the close of each bar (N,): (N, lookback_bars, F), one gather into fresh memory."""
        return self._windows[bar - self.first_bar]

    def market_window(self, bar: int) -> Float32Array:
        """The same (lookback_bars, F) of one bar."""
        first = bar - self.first_bar
        return self._rows[first : first + self.lookback_bars].copy()

    @cached_property
    def _windows(self) -> Float32Array:
        """A view (decision bars, lookback_bars, F) of the rows."""
        return sliding_window_view(self._rows, self.lookback_bars, axis=0).transpose(0, 2, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Without the view, of which a pickle or a copy would write out every lookback."""
        return {name: value for name, value in self.__dict__.items() if name != "_windows"}

    def _check_span(self, data: MarketData) -> None:
        span, episode_decisions = self.span, self.episode_decisions
        if not 0 <= span.first < span.stop <= len(data):
            raise DataError(f"a span must lie in the data's {len(data)} bars, was {span.first} .. {span.stop - 1}")
        if episode_decisions is not None and episode_decisions < 1:
            raise ConfigError(f"episode_decisions must be >= 1, was {episode_decisions}; or None for the whole span")
        needed = self.lookback_bars + (episode_decisions or 1) * self.rules.patch_bars
        if len(span) < needed:
            raise DataError(
                f"an episode of {episode_decisions or 1} decisions needs {needed} bars (a lookback of "
                f"{self.lookback_bars}, then {self.rules.patch_bars} each), the span has {len(span)}; "
                "use a longer span or import more history"
            )
        window = slice(span.first, span.stop)
        for name, values in (("mark", data.mark[window]), ("sigma", data.sigma[window])):
            if len(bad := np.flatnonzero(~(np.isfinite(values) & (values > 0)))):
                raise DataError(
                    f"{name} must be positive throughout the span, was {values[bad[0]]} at bar {span.first + bad[0]}; "
                    "begin the span after the warm-up and the first present bar"
                )

    def _per_bar(self, size_frac: float | FloatArray) -> FloatArray:
        sizes, n_bars = np.asarray(size_frac, dtype=np.float64), len(self.bars.open)
        if sizes.shape not in ((), (n_bars,)):
            raise DataError(f"size_frac must be one number or one per bar ({n_bars},), was of shape {sizes.shape}")
        sizes = np.array(np.broadcast_to(sizes, n_bars))
        decided = sizes[self.first_bar : self.last_bar + 1]
        if len(bad := np.flatnonzero(~(np.isfinite(decided) & (decided >= 0)))):
            raise DataError(
                f"size_frac must be a share >= 0, was {decided[bad[0]]} at bar {self.first_bar + bad[0]}; "
                "use 0 where no lot is to be opened"
            )
        return sizes

    def _allowed(self, entry_allowed: BoolArray | None) -> BoolArray:
        n_bars = len(self.bars.open)
        if entry_allowed is None:
            return np.ones(n_bars, np.bool_)
        allowed = np.array(entry_allowed)
        if allowed.shape != (n_bars,) or allowed.dtype != np.bool_:
            raise DataError(
                f"entry_allowed must be one bool per bar ({n_bars},), was {allowed.dtype} of shape {allowed.shape}"
            )
        return allowed

    def _scaled_rows(self, data: MarketData, scaler: Scaler) -> Float32Array:
        """The span's features (bars, F) as they are observed: the lookback of a decision is a slice of them."""
        rows = np.array(data.features[self.span.first : self.span.stop], dtype=np.float32)
        if scaler.mean.shape != rows.shape[1:]:
            raise DataError(
                f"the scaler must have the data's {rows.shape[1]} features, has {len(scaler.mean)}; fit it on this data"
            )
        if not np.isfinite(rows).all():
            bar, column = np.argwhere(~np.isfinite(rows))[0]
            raise DataError(
                f"features must be finite, {data.feature_names[column]} was {rows[bar, column]} at bar "
                f"{self.span.first + bar}; write 0 where a bar is missing"
            )
        mask = rows[:, -1:].copy()
        rows -= scaler.mean
        rows /= scaler.std
        np.clip(rows, -CLIP, CLIP, out=rows)
        rows *= mask
        return rows


def as_action(action: Any) -> int | None:
    """A number of schema.Action, None for anything else; the compiled kernel would not look."""
    try:
        chosen = operator.index(action)  # what an agent predicts may be an array of no dimension
    except TypeError:
        return None
    return chosen if 0 <= chosen < len(Action) and not isinstance(action, bool) else None


def are_actions(actions: Any, shape: tuple[int, ...]) -> bool:
    """Whether these are numbers of schema.Action, in this shape."""
    values = np.asarray(actions)
    if values.dtype.kind not in "iu" or values.shape != shape:
        return False
    return 0 <= int(values.min()) and int(values.max()) < len(Action)


def bounded(account: Float32Array) -> Float32Array:
    """(..., A) what the kernel observed, inside the observation space: only ruin goes beyond it, or to 0 / 0."""
    return np.fmin(np.fmax(account, ACCOUNT_LOW), ACCOUNT_HIGH)


INFO = {
    "equity_usdt": EQUITY,
    "costs_usdt": COSTS_PAID,
    "funding_usdt": FUNDING_PAID,
    "transferred_usdt": TRANSFERRED,
    "n_lots": N_LOTS,
}
"""What an environment tells of an account, beside bar and exposure_frac: the account's columns by name."""


def account_info(bar: IntArray, accounts: FloatArray) -> dict[str, IntArray | FloatArray]:
    """bar (N,), accounts (N, N_ACCOUNT) -> the info of every account, (N,) each."""
    equity = accounts[:, EQUITY]
    columns = {name: accounts[:, column].copy() for name, column in INFO.items()}
    exposure = np.divide(equity - accounts[:, CASH], equity, out=np.zeros(len(equity)), where=equity != 0)
    return {"bar": bar.copy(), **columns, "n_lots": columns["n_lots"].astype(np.int64), "exposure_frac": exposure}


def _check_rules(rules: Rules) -> None:
    """What the compiled kernel relies on, and what a rule would silently not do."""
    for name in ("max_lots", "patch_bars"):
        if getattr(rules, name) < 1:
            raise ConfigError(f"rules.{name} must be >= 1, was {getattr(rules, name)}; see make_rules")
    if not rules.goal_frac > 0:
        raise ConfigError(f"rules.goal_frac must be > 0, was {rules.goal_frac}; see make_rules")
    if rules.allow_short and not rules.perpetual:
        raise ConfigError("rules.allow_short needs rules.perpetual: spot cannot be sold short; set both or neither")
