"""A simulated market on which folds are trained in seconds, and settings small enough for them."""

from export_fakes import tiny_config

from btcai.config import Config
from btcai.data.store import to_grid
from btcai.features.pipeline import build_market
from btcai.features.splits import Splits, make_splits
from btcai.schema import MarketData
from btcai.simulator.bars import simulate_bars


def small() -> tuple[Config, MarketData, Splits]:
    """A year of bars, short horizons so that purges are short too."""
    config = tiny_config()
    splits = config.splits.model_copy(update={"test_folds": 2, "embargo_bars": 0})
    buckets = {
        name: bucket.model_copy(
            update={"horizons_bars": (3 + bucket.patch_bars, 12 + bucket.patch_bars, 36 + bucket.patch_bars)}
        )
        for name, bucket in config.buckets.items()
    }
    config = config.model_copy(update={"splits": splits, "buckets": buckets})
    data = build_market(to_grid(simulate_bars(110_000, 4)))
    return config, data, make_splits(len(data), splits, config.purge_bars, data.warmup_bars)
