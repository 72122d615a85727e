"""Every strategy in the same hard markets: events where they are judged, and what sizing refused there."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import FakePolicy

from btcai import paths
from btcai.config import Config
from btcai.evaluation import stress
from btcai.evaluation.stress import BESIDE, CALM, FUNDING
from btcai.features.table import WARMUP_BARS
from btcai.params import changed, load_config
from btcai.schema import BARS_PER_DAY, Action
from btcai.simulator.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(Path(__file__).parents[2] / paths.PARAMS)


def test_scenario_begins_after_what_is_looked_back_on(config: Config) -> None:
    data, span = stress._market("flash_crash", config, 20, seed=1)
    calm, same = stress._market(CALM, config, 20, seed=1)
    assert span == same
    assert span.first == 4032 + WARMUP_BARS
    assert len(span) == 20 * BARS_PER_DAY
    np.testing.assert_array_equal(data.mark[: span.first], calm.mark[: span.first])
    fell = [np.log(market.mark[12:] / market.mark[:-12]).min() for market in (data, calm)]  # within an hour
    assert fell[0] < fell[1] - 0.02


def test_every_scenario_happens(config: Config) -> None:
    for name in SCENARIOS:
        events = stress._events(name, 20 * BARS_PER_DAY, seed=0)
        assert any(event.start_bar < 10 * BARS_PER_DAY for event in events)


def test_rows_hold_every_bucket_and_baseline_in_every_scenario(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "SCENARIOS", {"news": SCENARIOS["news"], FUNDING: SCENARIOS[FUNDING]})
    policy = FakePolicy(always=Action.BUY)
    rows = stress.stress({"scalping": policy}, config, seed=3, days=2)
    assert [(row.scenario, row.strategy) for row in rows] == [
        (name, strategy) for name in (CALM, "news") for strategy in ("scalping", *BESIDE)
    ]
    bucket, held, _ = rows[:3]
    assert (bucket.unfamiliarity, bucket.unfamiliar_frac, bucket.refused_frac) == (0.5, 0.0, 0.0)
    assert np.isnan([held.unfamiliarity, held.unfamiliar_frac, held.refused_frac]).all()
    assert held.max_drawdown_frac > 0
    assert stress.stress({"scalping": policy}, config, seed=3, days=2)[0] == bucket


def test_unfamiliar_markets_refuse_lots(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "SCENARIOS", {})
    strict = changed(config, {"sizing.max_unfamiliarity": 0.4})
    [bucket, *_] = stress.stress({"scalping": FakePolicy(always=Action.BUY)}, strict, seed=3, days=2)
    assert bucket.refused_frac == 1.0
    assert bucket.trades == 0
