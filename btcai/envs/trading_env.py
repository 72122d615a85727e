"""The market as a gymnasium environment, for anyone's agent; the numbers are the kernel's, step for step."""

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from btcai.envs.scenario import INFO, Scenario, as_action, bounded
from btcai.errors import ConfigError, DataError
from btcai.market.account import CASH, EQUITY, new_accounts
from btcai.market.kernel import decision_step, observe
from btcai.market.reward import TERMS
from btcai.schema import ACCOUNT_FEATURES, Action

if TYPE_CHECKING:
    from btcai.envs.recording import Walk

Observation = dict[str, Any]  # "market" and "account", float32 arrays


class TradingEnv(gymnasium.Env[Observation, np.int64]):
    """One account of one bucket on a span of 5-minute bars, one decision per patch of `rules.patch_bars` bars.

    ## Example
    >>> from pathlib import Path
    >>> from btcai.params import load_config
    >>> from btcai.simulator.bars import simulate_bars
    >>> from btcai.data.store import to_grid
    >>> from btcai.features.pipeline import build_market
    >>> from btcai.envs.trading_env import TradingEnv
    >>> from btcai.envs.scenario import Scenario
    >>> from btcai.schema import Action

    >>> data = build_market(to_grid(simulate_bars(160_000, seed=7)))  # or features.store.load_market(folder)
    >>> scenario = Scenario.from_config(load_config(Path("params.yaml")), "scalping", data, episode_decisions=100)
    >>> env = TradingEnv(scenario)
    >>> observation, info = env.reset(seed=1)
    >>> observation, reward, terminated, truncated, info = env.step(Action.BUY)
    >>> info["n_lots"], env.observation_space["account"].shape
    (1, (9,))

    params.yaml holds every rule below; words in `code font` without a prefix are fields of market/rules.Rules. For many
    accounts at once: vector_env.TradingVectorEnv(scenario, num_envs).

    ## Action space: Discrete(4), schema.Action, decided at the close of bar t
    | n | action | without a lot | while long | while short |
    |---|---|---|---|---|
    | 0 | HOLD | nothing | nothing | nothing |
    | 1 | BUY | opens a long lot | opens a long lot | closes the oldest lot |
    | 2 | SELL | opens a short lot if `allow_short` | closes the oldest lot | opens a short lot |
    | 3 | CLOSE_ALL | nothing | closes all lots | closes all lots |

    An account holds at most `max_lots` lots, all of one side, closed first in, first out. A lot is opened only where
    there is a free lot, cash, room under `max_exposure_frac`, no halt, entry_allowed[t] and size_frac[t] > 0. While an
    order waits no other is taken. What cannot be done is HOLD.

    ## From the order to the fill
    - When: at the open of bar t + 1, or `latency_bars` later. A missing bar fills nothing, and is not counted.
    - Size: a lot takes size_frac[t] of the equity, cut to `max_volume_share` of the bar's volume, to the cash (fee
      included) and to `max_exposure_frac` of the equity; floored to `lot_step_btc`; nothing below `min_notional_usdt`
      or 1e-4 of the start's equity. A close is cut to the volume share too, and a lot below `min_notional_usdt` is
      closed by CLOSE_ALL only. What is cut off is not ordered again.
    - Taker price: open * (1 +- (`half_spread_frac` + `impact_coef` * sigma * sqrt(quantity / volume))), + for a buy,
      sigma of one bar's log return as known before the bar; rounded to `tick_usdt` against the account.
    - Maker, with `maker_bars` > 0 (never a CLOSE_ALL): rests at open * (1 -+ half_spread_frac) of each of the next
      maker_bars present bars, fills where the price trades through it (not where it only touches), and crosses the
      spread after that.
    - Fee: `taker_fee_frac` or `maker_fee_frac` of the notional, times `tier_taker_factor` or `tier_maker_factor` of the
      highest tier `tier_usdt` that the account's notional of the last 30 UTC days reaches.
    - Stop, at `stop_loss_frac` from the entry price: the whole lot, at the stop or, where the bar opens beyond it, at
      the open, less taker costs. Target, at `take_profit_frac`: where the price trades through it, at the target, maker
      fee, within the volume share, from the bar after the entry on. A stop comes before a target, and before an order
      that rests to close the same lot.
    - Perpetual swap (`perpetual`): at 00, 08 and 16 h UTC a long pays rate * value (a short receives it), and
      `missing_funding_frac` * value is paid by either where the rate is unknown. A short is liquidated at the price
      where equity is `maintenance_frac` of its value.
    - Transfers, at the start of a UTC day but the episode's first: `transfer_usdt` every `transfer_every_days` days,
      and with `transfer_daily_probability` a random share of the equity up to `transfer_max_frac`, in or out. They
      scale the start's equity, the peak and the day's start, so that they are neither profit nor loss. A withdrawal
      takes at most half the equity, and only free cash.
    - Halts: a UTC day's loss of `daily_loss_halt_frac` stops new lots for `cool_down_bars` and drops an entry that
      waits; a drawdown of `drawdown_halt_frac` also closes all lots, lasts until none is left, and the peak restarts
      after it. The day's start restarts after either.
    - A close that waits is for the oldest lot of the moment it fills: where a stop took that lot, for the next.

    ## Observation space: Dict, float32
    - `market` Box(-5, 5, (lookback_bars, F)): features of the bars up to t, oldest first, as
      clip((x - mean) / std, -5, 5) * mask of the scaler; the mask, 0 where a bar is missing, is the last column.
    - `account` Box((9,)):
      | i | name | what | range |
      |---|---|---|---|
      | 0 | cash_frac | equity in no lot / equity | -5 .. 1 |
      | 1 | lots_frac | open lots / max_lots, below 0 when short | -1 .. 1 |
      | 2 | open_return_sigmas | mean gain of the open lots, in sigma of one patch | -5 .. 5 |
      | 3 | oldest_return_sigmas | gain of the oldest lot, same unit | -5 .. 5 |
      | 4 | drawdown_frac | 1 - equity / its peak | 0 .. 1 |
      | 5 | goal_progress | (equity / start's equity - 1) / goal_frac | -1 .. 1 |
      | 6 | decisions_since_trade | log1p(decisions since the last fill) / 5 | 0 .. 5 |
      | 7 | can_buy | 1 where BUY would do something | 0, 1 |
      | 8 | can_sell | 1 where SELL or CLOSE_ALL would | 0, 1 |

    ## Reward
    Sum of `w_NAME` * term over the patch's bars, E0 and S0 the equity and the start's equity at the decision, E1 and S1
    after the patch (S1 = S0 but for transfers), base = E0:
    | term | formula |
    |---|---|
    | net_profit | log((E1 / S1) / (E0 / S0)), all costs included |
    | cost | -(fees + spread + impact + funding) / base |
    | drawdown | -max(0, growth of the drawdown) |
    | win_rate | sum over closed lots: its cost / base * r / sqrt(1 + (r / s)^2), r its return, s sigma of a patch |
    | bonus | sum over closed lots: its cost / base * g * min(1, g / goal_frac), g = max(0, return) |
    | goal | growth of min((E / S - 1) / goal_frac, 1) |

    Without `compound` lots and profits are shares of the start's equity: base = S0, net_profit = E1 / S1 - E0 / S0.

    ## Start of an episode
    `equity_usdt` of cash, no lot. The first decision is at a uniformly random bar of the span that leaves room for
    `episode_decisions` (the first bar with a whole lookback inside the span when None), or at
    reset(options={"start_bar": t}). All chance comes from reset(seed=...): the start bar and random transfers.

    ## End of an episode
    `terminated`: equity at or below 10 % of the start's (a short may gap to below zero). `truncated`:
    `episode_decisions` made, or the next decision would not be paid inside the span; the market goes on there, so
    bootstrap the value.

    ## Info
    bar (index of the bar whose close is observed), equity_usdt, costs_usdt (so far, funding included), funding_usdt,
    transferred_usdt, n_lots, exposure_frac (below 0 when short); after a step reward_terms, the terms by name without
    their weights.

    ## Rendering
    render_mode "rgb_array": the episode so far as one picture (800 rows, 1200 columns, 3), needs matplotlib.

    ## Errors
    DataError for an action or a start_bar out of range; gymnasium.error.ResetNeeded for a step of an episode that has
    not begun or is over.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium's interface)

    def __init__(self, scenario: Scenario, *, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode must be None or rgb_array, was {render_mode}; choose one of these")
        self.scenario = scenario
        self.render_mode = render_mode
        self.observation_space, self.action_space = scenario.new_spaces()
        self._running = False
        self._bar = scenario.first_bar
        self._start: tuple[int, int] | None = None
        self._actions: list[int] = []
        self._account, self._lots = new_accounts(1, scenario.rules.max_lots, scenario.equity_usdt)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; options may hold start_bar, the bar of the first decision."""
        super().reset(seed=seed)
        scenario = self.scenario
        self._start = self._bar, account_seed = scenario.start(self.np_random, options)
        self._actions = []
        self._account, self._lots = new_accounts(
            1, scenario.rules.max_lots, scenario.equity_usdt, np.array([account_seed], np.float64)
        )
        self._running = True
        return self._observe(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide at the close of the current bar and walk one patch."""
        if not self._running:
            raise ResetNeeded("an episode must be begun before it is stepped; call reset()")
        if (chosen := as_action(action)) is None:
            raise DataError(f"an action must be 0 .. {len(Action) - 1}, was {action}; see schema.Action")
        scenario, bar, terms = self.scenario, self._bar, np.zeros(len(TERMS))
        reward, terminated = decision_step(
            self._account[0],
            self._lots[0],
            scenario.bars,
            bar,
            chosen,
            float(scenario.size_frac[bar]),
            bool(scenario.entry_allowed[bar]),
            scenario.rules,
            terms,
        )
        self._actions.append(chosen)
        self._bar += scenario.rules.patch_bars
        truncated = bool(scenario.is_over(self._bar, len(self._actions)))
        self._running = not (terminated or truncated)
        info = self._info() | {"reward_terms": dict(zip(TERMS, terms.tolist(), strict=True))}
        return self._observe(), float(reward), bool(terminated), truncated, info

    def walk(self) -> "Walk":
        """The episode so far, bar by bar: its decisions walked once more."""
        from btcai.envs.recording import record_walk

        if self._start is None:
            raise ResetNeeded("there is no episode to show; call reset()")
        start_bar, account_seed = self._start
        return record_walk(self.scenario, start_bar, self._actions, account_seed)

    def render(self) -> Any:
        """The episode so far as pixels, uint8 (height, width, 3), in render_mode "rgb_array"; else None."""
        from btcai.envs.picture import account_figure, pixels

        return None if self.render_mode is None else pixels(account_figure(self.walk()))

    def _observe(self) -> Observation:
        account = np.empty(len(ACCOUNT_FEATURES), np.float32)
        observe(self._account[0], self._lots[0], self.scenario.bars, self._bar, self.scenario.rules, account)
        return {"market": self.scenario.market_window(self._bar), "account": bounded(account)}

    def _info(self) -> dict[str, Any]:
        account = self._account[0].tolist()
        equity, info = account[EQUITY], {name: account[column] for name, column in INFO.items()}
        exposure = (equity - account[CASH]) / equity if equity != 0 else 0.0
        return {"bar": self._bar, **info, "n_lots": int(info["n_lots"]), "exposure_frac": exposure}
