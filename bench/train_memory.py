"""Peak memory of training, in a process of its own: python -m bench.train_memory BUCKET UPDATES PARAMS BARS."""

import os
import sys
from pathlib import Path

from bench.learn_budget import Updates
from bench.markets import REAL_DATA, simulated_bars, trading_market
from bench.memory import peak_bytes
from bench.train_runs import feature_subjects, train
from btcai.features.pipeline import build_market
from btcai.params import load_config
from btcai.schema import MarketData
from btcai.training.checkpoint import set_up_torch

BARS = 341_552
"""As many as the real bars that the goal was set on, where there are none."""


def market(n_bars: int) -> MarketData:
    """Real bars where there are some, else n_bars simulated ones."""
    return trading_market()[1] if os.environ.get(REAL_DATA) else build_market(simulated_bars(n_bars))


def main(bucket: str, updates: int, params: Path, n_bars: int) -> None:
    """Print the bars, and the peak in bytes once the bucket has been trained for a few updates of each phase."""
    config = load_config(params)
    set_up_torch(config)
    data = market(n_bars)
    train(feature_subjects(config, data, (bucket,))[bucket], config, Updates(pretrain=updates, ppo=updates))
    sys.stdout.write(f"{len(data)} {peak_bytes()}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
