"""A clock that jumps: durations do not follow it, records keep their order, and bars of a future are refused."""

import ast
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from export_fakes import frame, hand_made_bundle, market, newest_bars

from btcai import summary, usage
from btcai.data.sources import read_source
from btcai.errors import DataError
from btcai.fetch.exchange import asked_s
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide
from btcai.records import promotions
from btcai.records.openings import Opening, looks, opened
from btcai.records.promotions import Change, Seats
from btcai.records.trials import JudgedSpan, append_trial, trial_sharpes
from btcai.schema import SealedSpan

ROOT = Path(__file__).resolve().parents[2]
WALL = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "clock_ms", "sources.clock_ms")
HOUR_NS = 3_600_000_000_000

MAY_SUBTRACT = {
    "btcai/logs/mail.py": "time since a file was written, by the clock that stamped it; a test puts the clock back",
    "btcai/acquisition.py": "the newest bar to ask for: a moment, by the clock that the exchange's is held against",
    "btcai/commands/fetch.py": "the newest bar to ask for, likewise",
    "btcai/fetch/exchange.py": "the newest bar that has ended, by this clock or the exchange's",
    "flows/news.py": "age of the newest bar, which the exchange stamped",
    "btcai/serving/service.py": "age of the newest bar, which the exchange stamped; never below 0",
}
"""Where a wall clock's difference is meant."""


def wall_clock_differences(source: str) -> list[int]:
    """Lines that subtract something from a wall clock's reading, or it from something, at once or by a name."""
    tree = ast.parse(source)

    def reads(node: ast.AST) -> bool:
        return any(isinstance(one, ast.Call) and ast.unparse(one.func) in WALL for one in ast.walk(node))

    names = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and reads(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_wall(node: ast.AST) -> bool:
        return reads(node) or (isinstance(node, ast.Name) and node.id in names)

    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and (is_wall(node.left) or is_wall(node.right))
    ]


def test_the_search_finds_both_ways() -> None:
    source = "began = time.time()\nwork()\ntook = time.time() - began\nage = datetime.now(UTC) - stamp\nx = began - 1\n"
    assert wall_clock_differences(source) == [3, 4, 5]
    assert wall_clock_differences("began = time.monotonic()\ntook = time.monotonic() - began\nnow = time.time()") == []


def test_no_duration_is_taken_from_a_clock_that_may_jump() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in ("btcai", "flows", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := wall_clock_differences(path.read_text(encoding="utf-8")))
    }
    assert set(found) <= set(MAY_SUBTRACT), found


def test_how_long_a_training_took_does_not_follow_a_clock_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with usage.sampled(tmp_path / usage.FILE, every_s=0.05):
        time.sleep(0.12)
        monkeypatch.setattr(time, "time", lambda: real() - 86_400.0)
        time.sleep(0.12)
    rows = usage.read(tmp_path / usage.FILE)
    took = [row["elapsed_s"] for row in rows]
    assert took == sorted(took)
    assert 0.0 <= took[-1] < 60.0


def test_bars_that_lie_ahead_of_a_clock_put_back_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    frame().head(100).to_csv(file, index=False)
    first_ms = int(frame()["open_time"].iloc[0].timestamp() * 1000)
    with pytest.raises(DataError, match=r"a bar must not be from the future \(now is .*give opening times in UTC"):
        read_source([file], "5m", first_ms + 50 * 300_000 - 1)
    with pytest.raises(DataError, match=r"a bar must have ended"):
        read_source([file], "5m", first_ms + 100 * 300_000 - 1)
    assert len(read_source([file], "5m", first_ms + 100 * 300_000).bars) == 100


def test_a_decision_depends_on_the_bars_and_not_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path, "scalping"))
    bars = newest_bars(market().bars, 9000, 2400)
    before = decide(bundle, bars)
    for jumped_s in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda at=jumped_s: at)
        monkeypatch.setattr(time, "time_ns", lambda at=jumped_s: int(at * 1e9))
        assert decide(bundle, bars) == before


@pytest.mark.parametrize("days_wrong", [-400, 0, 400])
def test_how_long_an_exchange_asks_to_wait_is_by_its_own_clock(days_wrong: int) -> None:
    """By ours it would be left alone for a year, or asked again at once, which makes bans longer."""
    now_ms = 1_700_000_000_000 + days_wrong * 86_400_000
    said = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT", "Retry-After": "Tue, 14 Nov 2023 22:14:05 GMT"}
    assert asked_s(said, now_ms) == 45.0
    assert asked_s({"retry-after": "7"}, now_ms) == 7.0
    if not days_wrong:
        assert asked_s({"Retry-After": said["Retry-After"]}, now_ms) == 45.0


def test_a_decision_of_the_future_is_told_as_one() -> None:
    close_ts_ns = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1e9)
    assert "ahead of this computer's clock" in summary.bar_age(close_ts_ns, close_ts_ns - 2 * HOUR_NS, 1)
    assert "ago: old bars" in summary.bar_age(close_ts_ns, close_ts_ns + 2 * HOUR_NS, 1)


def test_records_keep_the_order_in_which_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is pinned, how often a span was looked at, what was tried: by the order of lines, whatever they are dated."""
    ledger, openings, trials = (tmp_path / name for name in ("promotions.jsonl", "openings.jsonl", "trials.jsonl"))
    seats = Seats(champion=1, previous=None, pinned=None)
    for number, now in enumerate((2_000_000_000, 1_000_000_000)):  # the clock was put back by thirty years
        monkeypatch.setattr(time, "time", lambda at=now: float(at))
        pinned = Seats(champion=1, previous=None, pinned=number or None)
        change = Change(
            kind="promote", bucket="short", before=seats, after=pinned, because="x", model_version="m",
            manifest_sha256="f", who="w",
        )  # fmt: skip
        promotions.begin(ledger, change)
        promotions.end(ledger, change, "done")
        look = Opening(
            market="m", data_version="d", first_ts_ns=1, last_ts_ns=2, opened_unix_s=now, because="b", models={},
        )  # fmt: skip
        assert opened(SealedSpan(0, 9), look, openings)[1] == number + 1
        append_trial(trials, {"input_hash": str(number), "data_version": "d", "sharpes": {"a": float(number)}})
    assert promotions.pins(ledger)["short"].after.pinned == 1
    assert [one.opened_unix_s for one in looks(openings)] == [2_000_000_000, 1_000_000_000]
    assert trial_sharpes(
        trials,
        JudgedSpan(market="m", first_ts_ns=0, last_ts_ns=1, data_version="d"),
        {"config": None, "code_version": "c"},
    ) == [0.0, 1.0]
    assert [json.loads(line)["input_hash"] for line in trials.read_text(encoding="utf-8").splitlines()] == ["0", "1"]
