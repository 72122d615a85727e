"""N accounts of one scenario as a gymnasium vector environment: one compiled call steps them all."""

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from btcai.envs.scenario import Scenario, account_info, are_actions, bounded
from btcai.envs.trading_env import Observation
from btcai.errors import ConfigError, DataError
from btcai.market.account import new_accounts
from btcai.market.kernel import observe_accounts, step_accounts
from btcai.market.reward import TERMS
from btcai.schema import ACCOUNT_FEATURES, Action, BoolArray, FloatArray, IntArray

Generators = list[np.random.Generator]
StepResult = tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]


class TradingVectorEnv(VectorEnv[Observation, IntArray, np.ndarray[Any, Any]]):
    """gymnasium.vector.SyncVectorEnv of `num_envs` env.TradingEnv, bit for bit, at a compiled loop's speed.

    Actions (N,) 0 .. 3; observations "market" (N, lookback_bars, F) and "account" (N, 9) float32; rewards (N,) float64;
    terminated, truncated (N,) bool; infos as arrays (N,), each with its mask under "_NAME", as gymnasium adds them up.

    Autoreset is AutoresetMode.NEXT_STEP: the step after an account's last ignores its action, begins its next episode,
    and returns that episode's first observation and reward 0. reset(seed=s) seeds account i with s + i, or takes a list
    of N seeds; options are start_bar, for all, and reset_mask (N,) bool, the accounts to begin anew.

    Raises DataError for actions or a start_bar out of range, ValueError for a wrong number of seeds.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, scenario: Scenario, num_envs: int) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be >= 1, was {num_envs}; give the market an account")
        self.scenario = scenario
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = scenario.new_spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: Generators = []
        self._bar = np.full(num_envs, scenario.first_bar)
        self._decisions = np.zeros(num_envs, np.int64)
        self._begun = np.zeros(num_envs, np.bool_)
        self._ended = np.zeros(num_envs, np.bool_)
        self._accounts, self._lots = new_accounts(num_envs, scenario.rules.max_lots, scenario.equity_usdt)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode of every account, or of those in options["reset_mask"]."""
        begun = self._reset_mask(options or {})
        chosen = np.flatnonzero(begun)
        self._seed(seed, chosen)
        self._begin(chosen, options)
        self._begun |= begun
        self._ended &= ~begun
        return self._observe(), self._infos(begun)

    def step(self, actions: IntArray) -> StepResult:
        """Decide for every account and walk one patch; accounts whose episode is over begin the next one instead."""
        self._check(actions)
        scenario, ended = self.scenario, self._ended
        # Accounts at their end are stepped too, somewhere harmless, and then begun anew: one call serves all.
        bar = np.where(ended, scenario.first_bar, self._bar)
        reward, terminated = np.empty(self.num_envs), np.empty(self.num_envs, np.bool_)
        terms = np.empty((self.num_envs, len(TERMS)))
        step_accounts(
            self._accounts,
            self._lots,
            scenario.bars,
            bar,
            np.asarray(actions, np.int64),
            scenario.size_frac[bar],
            scenario.entry_allowed[bar],
            scenario.rules,
            reward,
            terminated,
            terms,
            0,
            self.num_envs,
        )
        self._bar = bar + scenario.rules.patch_bars
        self._decisions += 1
        self._begin(np.flatnonzero(ended), None)
        truncated = scenario.is_over(self._bar, self._decisions) & ~ended
        terminated &= ~ended
        reward[ended], terms[ended] = 0.0, 0.0
        self._ended = terminated | truncated
        infos = self._infos(np.ones(self.num_envs, np.bool_)) | _term_infos(terms, ~ended)
        return self._observe(), reward, terminated, truncated, infos

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Each account's own generator."""
        self._seed(None, np.arange(0))
        return tuple(self._generators)

    def _reset_mask(self, options: dict[str, Any]) -> BoolArray:
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise DataError(
                f"reset_mask must be ({self.num_envs},) bool with a True in it, was {mask.dtype} of shape {mask.shape}"
            )
        return mask

    def _seed(self, seed: int | list[int | None] | None, chosen: IntArray) -> None:
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"seeds must be one per account, {self.num_envs}, were {len(seeds)}")
        if not self._generators:
            self._generators = [seeding.np_random(None)[0] for _ in range(self.num_envs)]
        for i in chosen:
            if seeds[i] is not None:
                self._generators[i] = seeding.np_random(seeds[i])[0]

    def _begin(self, chosen: IntArray, options: dict[str, Any] | None) -> None:
        """A fresh account at its start bar for each of the chosen ones."""
        if not len(chosen):
            return
        scenario = self.scenario
        starts = np.array([scenario.start(self._generators[i], options) for i in chosen])
        accounts, lots = new_accounts(
            len(chosen), scenario.rules.max_lots, scenario.equity_usdt, starts[:, 1].astype(np.float64)
        )
        self._accounts[chosen], self._lots[chosen] = accounts, lots
        self._bar[chosen], self._decisions[chosen] = starts[:, 0], 0

    def _check(self, actions: IntArray) -> None:
        if not self._begun.all():
            raise ResetNeeded("episodes must be begun before they are stepped; call reset()")
        if not are_actions(actions, (self.num_envs,)):
            raise DataError(
                f"actions must be {self.num_envs} numbers 0 .. {len(Action) - 1}, were {actions!r:.60}; "
                "see schema.Action"
            )

    def _observe(self) -> Observation:
        scenario = self.scenario
        account = np.empty((self.num_envs, len(ACCOUNT_FEATURES)), np.float32)
        observe_accounts(
            self._accounts, self._lots, scenario.bars, self._bar, scenario.rules, account, 0, self.num_envs
        )
        return {"market": scenario.market_windows(self._bar), "account": bounded(account)}

    def _infos(self, told: BoolArray) -> dict[str, Any]:
        """The columns of account_info where `told`, 0 elsewhere, each with its mask."""
        columns = account_info(self._bar, self._accounts)
        return _masked({name: np.where(told, values, 0) for name, values in columns.items()}, told)


def _term_infos(terms: FloatArray, told: BoolArray) -> dict[str, Any]:
    """reward_terms of the accounts that were stepped; nothing where none was."""
    if not told.any():
        return {}
    columns = dict(zip(TERMS, np.ascontiguousarray(terms.T), strict=True))
    return _masked({"reward_terms": _masked(columns, told)}, told)


def _masked(columns: dict[str, Any], mask: BoolArray) -> dict[str, Any]:
    return columns | {f"_{name}": mask.copy() for name in columns}
