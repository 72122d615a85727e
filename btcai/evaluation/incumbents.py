"""What the champions of the day do on the span that is judged: bundles, under today's costs, limits and sizing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from btcai.config import BucketConfig, Config
from btcai.errors import DataError
from btcai.evaluation.backtest import backtest, decisions_with_history, encode_decisions
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.robustness import cost_variants
from btcai.inference.bundle import Policy
from btcai.market.rules import make_rules
from btcai.schema import ACCOUNT_FEATURES, MarketData, Span

logger = logging.getLogger(__name__)

COMPARED_DECISIONS = 512
SAME = 1e-3
"""Two forms of one network differ by less than a tenth of it (training.export.PARITY), two networks by much more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Incumbent:
    """A bucket's champion, with the settings it was made for."""

    policy: Policy
    settings: BucketConfig
    note: str = ""
    """What a reader must know of it."""


def walk_incumbents(
    incumbents: Mapping[str, Incumbent], judged: Mapping[str, Policy], data: MarketData, span: Span, config: Config
) -> dict[str, dict[str, BacktestResult]]:
    """bucket -> name of robustness.cost_variants -> result, of every champion that is not what is judged itself.

    It keeps its own patch, horizons, lots and stops. One whose lookback finds no decision on the span is left out.
    """
    costs, found = cost_variants(config.market), {}
    for bucket, one in incumbents.items():
        try:
            if one.settings == config.buckets[bucket] and is_same(one.policy, judged[bucket], data, span):
                continue
            rules = [make_rules(one.settings, config.market, config.risk, cost) for cost in costs.values()]
            equity_usdt = config.market.equity_usdt
            walks = backtest(one.policy, data, span, one.settings, rules, config.sizing, equity_usdt)
        except DataError as error:
            logger.warning("the champion of %s is left out: %s", bucket, error)
            continue
        found[bucket] = {name: replace(walk, note=one.note) for name, walk in zip(costs, walks, strict=True)}
        logger.info("the champion of %s walked %d decisions", bucket, len(walks[0].decisions))
    return found


def is_same(one: Policy, other: Policy, data: MarketData, span: Span) -> bool:
    """Whether two policies are one network, whatever form it has: by their forecasts at the span's last decisions, and
    the probabilities of either for the same latents and accounts drawn at random."""
    if (one.patch_bars, one.lookback_bars, one.horizons_bars) != (
        other.patch_bars,
        other.lookback_bars,
        other.horizons_bars,
    ):
        return False
    decisions = decisions_with_history(one, data, span)[-COMPARED_DECISIONS:]
    ours, theirs = (encode_decisions(policy, data, decisions) for policy in (one, other))
    apart = np.abs(ours.mean - theirs.mean)
    if ours.latent.shape != theirs.latent.shape or not np.all(apart <= SAME * ours.std):  # nan is like nothing
        return False
    account = np.random.default_rng(0).normal(size=(len(decisions), len(ACCOUNT_FEATURES))).astype(np.float32)
    first, second = (policy.probabilities(ours.latent, account) for policy in (one, other))
    return bool(np.abs(first - second).max() <= SAME)
