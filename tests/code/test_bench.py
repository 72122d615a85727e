"""What `btcai bench` prints, and when a goal counts as met."""

import ast
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shutil import copy
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from bench import BENCHES, env, features, harness, memory, peers
from bench.line import Goal, Line
from bench.markets import random_walk
from bench.stopwatch import Stopwatch, Timing
from bench.walk import HOARDING, AccountWalk
from btcai import cli, paths
from btcai.errors import ConfigError
from btcai.features.table import WARMUP_BARS
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules
from btcai.params import load_config
from btcai.schema import BUCKETS, MarketData

KEYS = ["name", "value", "unit", "reference", "reference_value", "ratio", "goal", "met"]
FAST, HALF = Goal("value", ">=", 40e6), Goal("ratio", ">=", 0.5)


def line(value: float | None, reference_value: float | None = None, *goals: Goal) -> Line:
    return Line(name="n", value=value, unit="u", reference="r", reference_value=reference_value, goals=goals)


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (line(41e6, 80e6, FAST, HALF), True),
        (line(41e6, 90e6, FAST, HALF), False),  # 0.46 of the reference
        (line(39e6, 60e6, FAST, HALF), False),
        (line(41e6, None, FAST, HALF), None),  # fast enough, but nothing to compare with
        (line(39e6, None, FAST, HALF), False),  # too slow, whatever the reference does
        (line(None, 80e6, FAST, HALF), None),
        (line(41e6, 80e6), None),  # nothing was asked
        (line(0.2, None, Goal("value", "<=", 0.2)), True),
        (line(0.3, None, Goal("value", "<=", 0.2)), False),
        (line(1.0, 0.0, HALF), None),
    ],
)
def test_a_goal_is_met_missed_or_undecided(found: Line, met: bool | None) -> None:
    assert found.met is met


def test_a_line_has_its_eight_keys_first_and_in_order() -> None:
    full = Line(
        name="n",
        value=41_234_567.8,
        unit="u",
        reference="r",
        reference_value=80e6,
        goals=(FAST, HALF),
        note="why",
        more={"repeats": 5, "idle": True, "spread_frac": 0.123456789},
    )
    found = json.loads(harness.as_json(full))
    assert list(found) == [*KEYS, "repeats", "idle", "spread_frac", "note"]
    assert found["value"] == 41_234_600
    assert found["ratio"] == 0.515432
    assert found["goal"] == "value >= 40,000,000 and ratio >= 0.5"
    assert found["met"] is True
    assert found["spread_frac"] == 0.123457
    bare = json.loads(harness.as_json(Line(name="n", value=1.0, unit="u")))
    assert list(bare) == KEYS
    assert [bare[key] for key in KEYS[3:]] == [None] * 5


def test_runs_are_warmed_up_and_then_timed_in_turns() -> None:
    called: list[str] = []

    def run(name: str, units: float) -> float:
        called.append(name)
        return units

    ours, theirs = Stopwatch(repeats=2, patience_s=0).time(lambda: run("a", 3.0), lambda: run("b", 4.0))
    assert called == ["a", "b", "a", "b", "a", "b"]
    assert ours.units == (3.0, 3.0)
    assert theirs.units == (4.0, 4.0)


def test_the_median_counts_and_other_work_is_told() -> None:
    timing = Timing(units=(10.0, 10.0, 10.0), seconds=(1.0, 4.0, 2.0), others_cores=(0.0, 0.9, 0.3))
    assert timing.per_second == 5.0
    assert timing.median_s == 2.0
    assert timing.facts() == {"repeats": 3, "spread_frac": 1.5, "others_cores": 0.3, "idle": False}


@pytest.fixture
def fake_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A project in which `btcai bench fake` measures a met and a missed goal."""

    def lines(stopwatch: Stopwatch, config: object, root: Path) -> Iterator[Line]:
        yield line(41e6, 80e6, FAST)
        yield Line(name="n", value=1.0, unit="u", goals=(FAST,), more={"idle": False})
        yield Line(name="n", value=0.5, unit="u", note="not [bold], but as it is")

    copy(root / paths.PARAMS, tmp_path / paths.PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "bench.fake", SimpleNamespace(lines=lines))
    monkeypatch.setattr(harness, "BENCHES", ("fake",))
    return tmp_path


def test_stdout_is_json_alone_and_a_missed_goal_is_no_error(fake_bench: Path) -> None:
    done = CliRunner().invoke(cli.app, ["bench", "fake"])
    assert done.exit_code == 0
    assert [json.loads(text)["met"] for text in done.stdout.splitlines()] == [True, False, None]
    assert (fake_bench / "reports/bench/fake.jsonl").read_text(encoding="utf-8") == done.stdout
    assert "n: 41,000,000 u" in done.stderr


def test_a_bench_that_breaks_off_leaves_the_results_of_the_one_before(
    fake_bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[Line]:
        yield line(1.0)
        raise ConfigError("no more")

    CliRunner().invoke(cli.app, ["bench", "fake"])
    before = (fake_bench / "reports/bench/fake.jsonl").read_text(encoding="utf-8")
    monkeypatch.setitem(sys.modules, "bench.fake", SimpleNamespace(lines=broken))
    assert isinstance(CliRunner().invoke(cli.app, ["bench", "fake"]).exception, ConfigError)
    assert [file.name for file in (fake_bench / "reports/bench").iterdir()] == ["fake.jsonl"]
    assert (fake_bench / "reports/bench/fake.jsonl").read_text(encoding="utf-8") == before


def test_a_table_is_for_people(fake_bench: Path) -> None:
    done = CliRunner().invoke(cli.app, ["bench", "fake", "--table"])
    assert done.exit_code == 0
    assert "41,000,000" in done.stdout
    assert "yes" in done.stdout
    assert "not [bold], but as it is" in done.stdout
    assert "{" not in done.stdout
    met_and_idle = [row.replace("│", "").split()[-2:] for row in done.stdout.splitlines() if "40,000,000" in row]
    assert met_and_idle == [["yes", "-"], ["no", "no"]]
    assert "idle no: measured beside other work" in done.stdout


def test_every_bench_that_there_is_has_a_name_and_the_help_tells_them_all() -> None:
    def measures(path: Path) -> bool:
        functions = [
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        ]
        heads = {node.name: [argument.arg for argument in node.args.args[:3]] for node in functions}
        return heads.get("lines") == ["stopwatch", "config", "root"]

    assert {path.stem for path in Path(harness.__file__).parent.glob("*.py") if measures(path)} == set(BENCHES)
    told = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "200"}).stdout
    assert f"{', '.join(BENCHES[:-1])} or {BENCHES[-1]}." in told


def test_an_unknown_bench_names_those_there_are(fake_bench: Path) -> None:
    done = CliRunner().invoke(cli.app, ["bench", "evn"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "a bench must be one of fake, was evn; run: btcai bench fake"
    assert "repeats must be >= 1, was 0" in str(
        CliRunner().invoke(cli.app, ["bench", "fake", "--repeats", "0"]).exception
    )


@pytest.mark.parametrize(
    ("only", "measured"),
    [("", ["one", "two"]), ("two", ["two"]), ("rare, one", ["one", "rare"])],
)
def test_parts_are_measured_in_their_order_and_rare_ones_on_request(
    fake_bench: Path, monkeypatch: pytest.MonkeyPatch, only: str, measured: list[str]
) -> None:
    def lines(stopwatch: object, config: object, root: object, parts: tuple[str, ...]) -> Iterator[Line]:
        yield from (Line(name=part, value=1.0, unit="u") for part in parts)

    fake = SimpleNamespace(lines=lines, PARTS=("one", "two", "rare"), ON_REQUEST=("rare",))
    monkeypatch.setitem(sys.modules, "bench.fake", fake)
    done = CliRunner().invoke(cli.app, ["bench", "fake", "--only", only])
    assert [json.loads(text)["name"] for text in done.stdout.splitlines()] == measured


def test_an_unknown_part_names_those_there_are(fake_bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = str(CliRunner().invoke(cli.app, ["bench", "fake", "--only", "one"]).exception)
    assert without == "--only must be left out, as fake has no parts, was one; run: btcai bench fake"
    monkeypatch.setitem(sys.modules, "bench.fake", SimpleNamespace(PARTS=("one", "two")))
    unknown = str(CliRunner().invoke(cli.app, ["bench", "fake", "--only", "one,three"]).exception)
    assert unknown == "--only must be among one, two, was three; run: btcai bench fake"


def flat_market(n_bars: int) -> MarketData:
    bars = random_walk(n_bars)
    columns = np.random.default_rng(0).standard_normal((n_bars, 15))
    features = np.column_stack((columns, np.ones(n_bars))).astype(np.float32)
    names = tuple(f"f{i}" for i in range(16))
    sigma = np.full(n_bars, 1e-3)
    return MarketData(bars=bars, mark=bars.close, sigma=sigma, features=features, feature_names=names, warmup_bars=0)


def test_without_the_peers_environment_nothing_is_compared(tmp_path: Path) -> None:
    found = peers.measure_peers(flat_market(10), tmp_path, 1)
    assert found.fastest("SyncVectorEnv") == (peers.GYM_TRADING_ENV, None)
    assert "make bench-setup" in str(found.note)


def write_interpreter(root: Path, script: str) -> None:
    python = root / peers.INTERPRETER
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)


def test_the_fastest_peer_of_a_kind_is_the_reference(tmp_path: Path) -> None:
    report = {
        "single, 16 columns": {"per_second": 60_000.0, "idle": True},
        "SyncVectorEnv(8), 16 columns": {"per_second": 22_000.0, "idle": True},
        "SyncVectorEnv(64), 16 columns": {"per_second": 27_000.0, "idle": False},
        "SyncVectorEnv(64), 144 x 16": {"per_second": 28_000.0, "idle": True},
    }
    write_interpreter(tmp_path, f"echo '{json.dumps(report)}'")
    found = peers.measure_peers(flat_market(10), tmp_path, 1)
    name, rate = found.fastest("SyncVectorEnv", peers.PLAIN)
    assert (name, rate) == ("gym-trading-env 0.3.5 SyncVectorEnv(64), 16 columns", 27_000.0)
    assert found.idle is False


@pytest.mark.parametrize(
    ("script", "last_words"),
    [
        ("echo first >&2; echo no module named pandas >&2; exit 1", "no module named pandas"),
        ("exit 1", "no message"),
        ("echo '{'", "Expecting property name"),
        ("exec sleep 60", "nothing in 0 s"),
    ],
)
def test_a_peer_that_fails_is_a_note_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, last_words: str
) -> None:
    monkeypatch.setattr(peers, "_START_S", 0.4 if "sleep" in script else 60.0)
    monkeypatch.setattr(peers, "_REPEAT_S", 0.0)
    write_interpreter(tmp_path, script)
    found = peers.measure_peers(flat_market(10), tmp_path, 1)
    assert found.per_second == {}
    assert f"must run in .bench/, said: {last_words}" in str(found.note)
    assert str(found.note).endswith("make it anew with: rm -r .bench && make bench-setup")


def test_an_interpreter_that_is_gone_is_told_too(tmp_path: Path) -> None:
    (tmp_path / ".bench").mkdir()  # as after an upgrade of the Python that it was made with
    note = str(peers.measure_peers(flat_market(10), tmp_path, 1).note)
    assert "No such file" in note
    assert "rm -r .bench && make bench-setup" in note


def test_peak_memory_is_that_of_the_process() -> None:
    held = np.ones(25_000_000)  # 200 MB
    assert held.nbytes <= memory.peak_bytes() <= psutil.virtual_memory().total


@pytest.mark.slow
def test_env_bench_measures_every_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(env, "trading_market", lambda: ("a walk", flat_market(20_000)))
    size = env.Size(accounts=8, bars=60, gym_steps=64)
    found = list(env.lines(Stopwatch(1, patience_s=0), load_config(root / paths.PARAMS), tmp_path, size))
    assert [line.name for line in found] == [
        "scalping, 1 thread",
        "scalping, 2 threads",
        "scalping, 2 threads, beside others",
        "scalping, beside a loop that fetches ahead too, 2 threads",
        *(f"{bucket}, {threads}" for bucket in BUCKETS[1:] for threads in ("1 thread", "2 threads")),
        "scalping, many lots open, 2 threads",
        "scalping, everything on, 2 threads",
        "TradingEnv, scalping",
        "TradingVectorEnv(8), scalping",
        "TradingVectorEnv(64), scalping",
    ]
    assert all(line.value and line.value > 0 for line in found)
    assert [line.name for line in found if line.goals] == [found[1].name, found[2].name]
    assert found[2].met is None
    assert "their speed without it is unknown" in str(found[2].note)
    assert "make bench-setup" in str(found[2].note)
    assert json.loads(harness.as_json(found[0]))["mean_lots"] <= 25


@pytest.mark.slow
def test_accounts_walk_the_same_on_one_thread_and_on_two(root: Path) -> None:
    config = load_config(root / paths.PARAMS)
    rules = env.everything_on(make_rules(config.buckets["short"], config.market, config.risk))
    bars = bar_arrays(flat_market(5000))
    one, two = (AccountWalk(bars, rules, 31, 300, threads, HOARDING) for threads in (1, 2))
    assert one.run() == two.run() == 31 * 300 * 2
    assert one.mean_lots > 1
    np.testing.assert_array_equal(one.accounts, two.accounts)


@pytest.mark.slow
def test_features_bench_measures_batch_live_and_memory(tmp_path: Path, root: Path) -> None:
    size = features.Size(bars=6000, live_bars=5, memory_bars=6000)
    found = list(features.lines(Stopwatch(2, patience_s=0), load_config(root / paths.PARAMS), tmp_path, size))
    assert [line.unit for line in found] == ["s", "ms", "ms", "GB", "GB"]
    assert found[0].met is not None
    assert found[0].more["threads"] == found[0].more["reference_threads"] == 1  # 6,000 bars are one chunk
    assert found[1].name == "one live bar, median of 10"
    assert found[1].value is not None
    assert found[2].value is not None
    assert found[1].value <= found[2].value
    assert found[3].value is not None
    assert 0.05 < found[3].value < 2
    assert found[4].reference == "3,000 bars"
    assert found[4].value == pytest.approx(found[3].value - float(str(found[4].more["few_bars_gb"])))


def test_many_repeats_of_the_live_feed_need_no_more_bars(tmp_path: Path, root: Path) -> None:
    size = features.Size(bars=WARMUP_BARS + 5, live_bars=5)
    lines = features.lines(Stopwatch(40, patience_s=0), load_config(root / paths.PARAMS), tmp_path, size)
    assert [line.name for line in islice(lines, 1, 3)] == [
        "one live bar, median of 200",
        "one live bar, 99th percentile of 200",
    ]
