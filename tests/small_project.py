"""A project's folder with small settings and the features of a simulated market, for commands to be run in."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from learning_tasks import SMALL

from btcai import paths
from btcai.config import Config
from btcai.data.store import to_grid
from btcai.features.pipeline import build_market
from btcai.features.scaling import fit_scaler
from btcai.features.splits import make_splits
from btcai.features.store import save_market
from btcai.params import load_config
from btcai.schema import BUCKETS
from btcai.simulator.bars import simulate_bars
from btcai.training.checkpoint import new_model, save_model
from btcai.training.progressive import set_scaler

PARAMS = Path(__file__).resolve().parents[1] / paths.PARAMS
BUDGET = {
    "rounds": 1,
    "pretrain_updates": 3,
    "ppo_updates": 3,
    "consolidate_pretrain_updates": 2,
    "consolidate_ppo_updates": 2,
}


def small_project(root: Path, n_bars: int) -> Config:
    """params.yaml and artifacts/features in `root`. Patches are short, so that a few weeks are a lookback of `long`."""
    root.mkdir(parents=True)
    settings: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for patch_bars, bucket in enumerate(BUCKETS, start=1):
        horizons_bars = [3 + patch_bars, 12 + patch_bars, 36 + patch_bars]
        settings["buckets"][bucket] |= {"patch_bars": patch_bars, "horizons_bars": horizons_bars}
    settings["splits"] |= {"test_folds": 2, "embargo_bars": 0}
    settings["model"] = SMALL.model_dump()
    few = {"stretches": 4, "decisions": 128}
    settings["pretrain"] |= few
    settings["ppo"] |= {**few, "encoder_every": 2, "head_minibatches": 2, "agents": 2, "first_hold_logit": 0.0}
    settings["profiles"]["quick"] = BUDGET
    (root / paths.PARAMS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    config = load_config(root / paths.PARAMS)
    data = build_market(to_grid(simulate_bars(n_bars, 4)))
    splits = make_splits(len(data), config.splits, config.purge_bars, data.warmup_bars)
    meta = {"market": config.data.market, "data_version": "d" * 64, "splits": asdict(splits)}
    save_market(data, root / paths.FEATURES, meta)
    scaler = fit_scaler(data.features, splits.train)
    (root / paths.FEATURES / "scaler.json").write_text(scaler.to_json(), encoding="utf-8")
    for seed, bucket in enumerate(BUCKETS):
        torch.manual_seed(seed)
        model = new_model(config, bucket)
        set_scaler(model, scaler)
        save_model(model, root / paths.TRAIN / bucket)
    return config
