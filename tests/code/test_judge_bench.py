"""`btcai bench judge`: what it times, and that both sides of a race ran the same one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import make_market
from export_fakes import hand_made_bundle, loud_bundle, market
from report_fakes import full_evidence

from bench import harness, judge, judge_rule, peers
from bench.judge_rule import CrossRule, Traded, check_same
from bench.line import Line
from bench.stopwatch import Stopwatch
from btcai import judging, paths, reflection
from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError
from btcai.inference.bundle import load_bundle
from btcai.params import load_config
from btcai.reasoning.memory import Situations, new_memory
from btcai.reasoning.memory_file import save_memory
from btcai.reasoning.remembering import remember
from btcai.schema import BAR_NS, BUCKETS, MarketData

SIZE = judge.Size(rounds=1, days=40, strategies=3, resamples=50, decisions=4)
FEE = 1e-3
GAPS = (0, 1, 300, 301, 900, 1999)


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(root / paths.PARAMS)


@pytest.fixture
def small_market(monkeypatch: pytest.MonkeyPatch) -> MarketData:
    """In place of the bench's own."""
    monkeypatch.setattr(judge, "trading_market", lambda: ("small", market()))
    return market()


def measured(config: Config, root: Path, *parts: str) -> list[Line]:
    return list(judge.lines(Stopwatch(1, patience_s=0), config, root, parts, SIZE))


@pytest.fixture(scope="module")
def rule() -> CrossRule:
    return CrossRule(make_market(2000, missing=GAPS), FEE, 100_000.0)


@pytest.mark.parametrize("part", ["bundles", "explain"])
def test_missing_bundles_name_the_command_that_makes_them(config: Config, tmp_path: Path, part: str) -> None:
    with pytest.raises(ArtifactError, match=r"no bundle in .*candidate/scalping .*make one with: btcai run"):
        measured(config, tmp_path, part)


def test_it_is_one_of_the_benches_and_has_parts(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="among bundles, rule, bootstrap, report, explain, was draws"):
        next(harness.run("judge", 1, config, tmp_path, "draws"))


@pytest.mark.usefixtures("small_market")
def test_draws_are_timed_against_ten_seconds(config: Config, tmp_path: Path) -> None:
    (found,) = measured(config, tmp_path, "bootstrap")
    assert found.name == "50 bootstrap draws, 3 metrics, 3 strategies, 40 days"
    assert (found.unit, found.goal) == ("s", "value <= 10")
    assert found.value is not None
    assert found.met == (found.value <= 10)


@pytest.mark.usefixtures("small_market")
def test_every_bundle_walks_the_whole_history_and_the_sum_is_judged(config: Config, tmp_path: Path) -> None:
    for bucket in BUCKETS:
        loud_bundle(tmp_path / paths.CANDIDATE / bucket, bucket)
    *each, total = measured(config, tmp_path, "bundles")
    assert [line.name for line in each] == [f"{bucket}, encoded and walked" for bucket in BUCKETS]
    for line, bucket in zip(each, BUCKETS, strict=True):
        settings = config.buckets[bucket]
        bars = len(market()) - market().warmup_bars - settings.lookback_bars
        assert abs(int(str(line.more["decisions"])) - bars // settings.patch_bars) <= 1
        assert line.value is not None
        assert 0 < float(str(line.more["encoder_s"])) < line.value
    assert total.name == "4 bundles over 10,000 bars"
    assert total.value == pytest.approx(sum(line.value or 0.0 for line in each))
    assert total.value is not None
    assert (total.goal, total.met, total.more["bars"]) == ("value <= 20", total.value <= 20, "small")


def test_averages_are_those_of_pandas(rule: CrossRule) -> None:
    bars = make_market(2000, missing=GAPS).bars
    close = pd.Series(bars.close)[bars.present]
    fast, slow = (close.ewm(span=window, adjust=False).mean() for window in judge_rule.WINDOWS)
    above = (fast > slow).astype(float)
    crossed = above[above != above.shift(fill_value=0.0)]
    expected = np.full(len(bars), np.nan)
    expected[crossed.index] = crossed
    assert len(crossed) > 50
    np.testing.assert_array_equal(rule.targets(), expected)


def all_in_or_out(rule: CrossRule) -> tuple[list[int], list[int], float]:
    """The rule walked bar by bar in plain Python."""
    asked = rule.asked_of_others(1)
    close, opened = asked["close"], asked["open"]
    cash, btc, wanted, entries, exits = 100_000.0, 0.0, False, [], []
    quick = lazy = close[0]
    for k in range(len(close)):
        if wanted and not btc:
            cash, btc = 0.0, cash / (opened[k] * (1 + FEE))
            entries.append(k)
        elif btc and not wanted:
            cash, btc = btc * opened[k] * (1 - FEE), 0.0
            exits.append(k)
        quick += (close[k] - quick) * 2 / (judge_rule.WINDOWS[0] + 1)
        lazy += (close[k] - lazy) * 2 / (judge_rule.WINDOWS[1] + 1)
        wanted = quick > lazy
    return entries, exits, cash + btc * close[-1]


@pytest.mark.slow
def test_the_rule_is_all_in_or_out_at_the_next_open_after_fees(rule: CrossRule) -> None:
    entries, exits, equity = all_in_or_out(rule)
    found = rule.traded()
    assert found.exits.tolist() == exits
    assert found.entries.tolist() == entries[: len(exits)]
    assert found.final_equity_usdt == pytest.approx(equity, rel=1e-8)


SAME = Traded(np.array([3, 9]), np.array([5, 12]), 1000.0)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (Traded(np.array([3]), np.array([5]), 1000.0), "rival made 1: 2"),
        (SAME._replace(entries=np.array([3, 8])), "number 2 of rival goes from bar 8 to 12: ours from 9 to 12"),
        (SAME._replace(exits=np.array([6, 12])), "number 1 of rival goes from bar 3 to 6: ours from 3 to 5"),
        (SAME._replace(final_equity_usdt=1000.01), "must agree to 1e-06, rival has 1000.01 USDT: ours 1000"),
        (SAME._replace(final_equity_usdt=float("nan")), "rival has nan USDT"),
    ],
)
def test_a_race_that_was_not_the_same_one_is_none(theirs: Traded, message: str) -> None:
    check_same(SAME, SAME._replace(final_equity_usdt=1000.0005), "rival")
    with pytest.raises(AssertionError, match=message):
        check_same(SAME, theirs, "rival")


def answer(root: Path, report: dict[str, Any]) -> None:
    """An interpreter of others' packages that says `report`, whatever it is asked."""
    python = root / peers.INTERPRETER
    python.parent.mkdir(parents=True)
    (root / "said.json").write_text(json.dumps(report), encoding="utf-8")
    python.write_text(f"#!/bin/sh\ncat {root}/said.json\n", encoding="utf-8")
    python.chmod(0o755)


def vectorbt_says(traded: Traded) -> dict[str, Any]:
    trades = {"entries": traded.entries.tolist(), "exits": traded.exits.tolist()}
    one = {"crossed": 1.0, "ready": 1e12, "idle": True, "final_equity_usdt": traded.final_equity_usdt, **trades}
    return dict.fromkeys(judge_rule.ENGINES, one)


def test_the_rule_is_held_against_both_engines_of_vectorbt(
    config: Config, tmp_path: Path, small_market: MarketData
) -> None:
    fee_frac = config.market.costs.taker_fee_bps / 1e4
    answer(tmp_path, vectorbt_says(CrossRule(small_market, fee_frac, config.market.equity_usdt).traded()))
    found = measured(config, tmp_path, "rule")
    assert [line.reference for line in found] == ["vectorbt 1.2.0, numba", "vectorbt 1.2.0, rust"] * 2
    assert [line.met for line in found] == [True, True, False, False]
    assert {line.more["trades"] for line in found} == {len(CrossRule(small_market, fee_frac, 1.0).traded().exits)}
    assert {line.more["bars"] for line in found} == {int(small_market.bars.present.sum())}


@pytest.mark.usefixtures("small_market")
def test_a_rival_with_other_trades_ends_the_bench(config: Config, tmp_path: Path, rule: CrossRule) -> None:
    answer(tmp_path, vectorbt_says(rule.traded()))  # of another market
    with pytest.raises(AssertionError, match=r"same trades, vectorbt 1\.2\.0, numba made"):
        measured(config, tmp_path, "rule")


@pytest.mark.usefixtures("small_market")
def test_without_the_peers_environment_the_rule_is_timed_alone(config: Config, tmp_path: Path) -> None:
    found = measured(config, tmp_path, "rule")
    assert all(line.value and line.value > 0 and line.met is None for line in found)
    assert {line.note for line in found} == {peers.NO_PEERS}


@pytest.mark.slow
def test_vectorbt_makes_the_same_trades(root: Path, rule: CrossRule) -> None:
    if not (root / peers.ENVIRONMENT).is_dir():
        pytest.skip("no .bench/ environment: make bench-setup")
    report, note = peers.ask("vectorbt_rule", judge_rule.VECTORBT, rule.asked_of_others(1), root, 1)
    assert note is None
    assert tuple(report) == judge_rule.ENGINES
    for engine, said in report.items():
        theirs = Traded(np.array(said["entries"]), np.array(said["exits"]), said["final_equity_usdt"])
        check_same(rule.traded(), theirs, engine)
        assert said["crossed"] > 0
        assert said["ready"] > 0


def test_explaining_is_timed_beyond_deciding(config: Config, tmp_path: Path, small_market: MarketData) -> None:
    folders = {bucket: hand_made_bundle(tmp_path / paths.CANDIDATE / bucket, bucket) for bucket in BUCKETS}
    remembering(tmp_path / paths.REFLECTION / "short", folders["short"], small_market, range(2_100, 4_000, 12))
    remembering(tmp_path / paths.REFLECTION / "medium", folders["medium"], small_market, range(2_100, 9_990, 12))
    found = measured(config, tmp_path, "explain")
    names = [f"{bucket}, a decision explained, beyond deciding" for bucket in BUCKETS for _ in range(2)]
    assert [line.name.rpartition(",")[0] for line in found] == names
    assert [line.name.rpartition(",")[2] for line in found] == [" median of 4", " 99th percentile of 4"] * 4
    assert {(line.unit, line.goal) for line in found} == {("ms", "value <= 5")}
    for median, extreme in zip(found[::2], found[1::2], strict=True):
        assert 0 < float(str(median.more["decide_ms"])) <= float(str(extreme.more["decide_ms"]))
    remembered = [int(str(line.more["remembered"])) for line in found[::2]]
    assert remembered[0] == remembered[3] == 0
    assert remembered[1] > 0
    assert remembered[2] == 0  # of later bars than are explained: recalled there, it would look ahead


def remembering(folder: Path, bundle: Path, data: MarketData, rows: range) -> None:
    """Keep a memory of the situations at those rows."""
    version, stamps, latents = load_bundle(bundle).version, data.bars.close_ts_ns[list(rows)], data.features[list(rows)]
    known = Situations(
        close_ts_ns=stamps, known_ts_ns=stamps + 12 * BAR_NS, embedding=latents, outcome=np.full(len(rows), 0.5)
    )
    empty = new_memory(latents, stamps, model_version=version, horizon_bars=12)
    folder.mkdir(parents=True)
    save_memory(remember(empty, known, int(stamps[-1]) + 12 * BAR_NS), folder / reflection.MEMORY)


@pytest.mark.slow
@pytest.mark.usefixtures("small_market")
def test_the_report_is_written_of_the_evaluations_evidence(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = replace(full_evidence(), market="planted")
    monkeypatch.setattr(judging, "gather_evidence", lambda *_: evidence)
    (found,) = measured(config, tmp_path, "report")
    assert found.name == "report of planted"
    assert (found.unit, found.goal) == ("s", "value <= 30")
    assert int(str(found.more["files"])) > 10
    assert list(tmp_path.iterdir()) == []  # the bench leaves the project's own report alone
