"""A decision explained now, and a trade of the evaluation explained afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from export_fakes import frame, hand_made_bundle, market, newest_bars
from reasoning_fakes import bucket_of
from typer.testing import CliRunner

from btcai import explanation, paths
from btcai.commands import decide as decide_command
from btcai.commands import explain
from btcai.data.store import write_market
from btcai.errors import ArtifactError, DataError
from btcai.evaluation.result import TRADE_COLUMNS
from btcai.explanation import (
    Trade,
    decision_before,
    explain_decision,
    explain_trade,
    find_trade,
    left_by,
    read_trades,
)
from btcai.features.store import save_market
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import consider, decide
from btcai.market.account import PENDING
from btcai.reasoning.memory import Situations, new_memory
from btcai.reasoning.remembering import remember
from btcai.schema import BAR_NS, Bars

BOUGHT, SOLD = 8_000, 8_040


def trade_row(bucket: str, number: int, entry: int, leave: int, exit_price: float) -> dict[str, object]:
    bars = market().bars
    entry_price = float(bars.open[entry])
    return {
        "bucket": bucket,
        "number": number,
        "entry_ts_ns": int(bars.close_ts_ns[entry]),
        "exit_ts_ns": int(bars.close_ts_ns[leave]),
        "btc": 0.1,
        "entry_price": entry_price,
        "exit_price": exit_price,
        "profit_usdt": 0.1 * (exit_price - entry_price),
        "net_return": exit_price / entry_price - 1.0,
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with features, a candidate of scalping and of medium, and trades of both."""
    (tmp_path / paths.PARAMS).touch()
    save_market(market(), tmp_path / paths.FEATURES, {})
    for name in ("scalping", "medium"):
        hand_made_bundle(tmp_path / paths.CANDIDATE / name, name)
    open_ = market().bars.open
    rows = [
        trade_row("scalping", 1, BOUGHT, SOLD, float(open_[SOLD])),
        trade_row("scalping", 2, BOUGHT, BOUGHT, float(open_[BOUGHT])),
        trade_row("medium", 1, BOUGHT, SOLD, float(open_[SOLD])),
    ]
    (tmp_path / paths.EVALUATION).mkdir(parents=True)
    pd.DataFrame(rows).to_csv(tmp_path / explanation.TRADES, index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def champion(project: Path) -> Path:
    hand_made_bundle(project / paths.CHAMPION / "scalping")
    frame().to_csv(project / "bars.csv", index=False)
    return project


def test_an_explained_decision_is_the_one_that_is_taken(tmp_path: Path) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path))
    decision, found = decide(bundle, market().bars), explain_decision(bundle, market().bars, None, "flat")
    assert (found.action, found.size_frac) == (decision.action.name, decision.size_frac)
    assert found.close_ts_ns == decision.close_ts_ns == market().bars.close_ts_ns[-1]
    assert found.step("policy").facts["buy"] == decision.probabilities[1]
    assert found.step("sizing").facts["lot_frac"] == pytest.approx(decision.size_frac, rel=1e-6)
    assert found.model_version == decision.model_version


def test_only_what_was_known_by_then_is_recalled(tmp_path: Path) -> None:
    bundle, data = load_bundle(hand_made_bundle(tmp_path)), market()  # its latent is the newest bar's features
    rows = np.arange(6_000, 9_997, 3)
    latents, stamps = data.features[rows], data.bars.close_ts_ns[rows]
    empty = new_memory(latents, stamps, model_version=bundle.version, horizon_bars=3)
    assert explain_decision(bundle, data.bars, None, "flat", empty).step("memory").facts["n"] == 0.0
    known = Situations(
        close_ts_ns=stamps, known_ts_ns=stamps + 3 * BAR_NS, embedding=latents, outcome=np.full(len(rows), 0.5)
    )
    full = remember(empty, known, int(stamps[-1]) + 3 * BAR_NS)
    for stop in (8_000, 10_000):
        found = explain_decision(bundle, newest_bars(data.bars, stop, 3_000), None, "flat", full)
        assert found.recalled is not None
        assert found.recalled.n > 0
        assert all(stamp + 3 * BAR_NS <= found.close_ts_ns for stamp, _, _ in found.recalled.nearest)
        # every outcome was half a sigma up: of today's size
        assert found.recalled.mean_outcome == pytest.approx(0.5 * data.sigma[stop - 1] * 3**0.5)
        assert found.step("memory").score == 1.0


def test_what_a_decision_was_taken_on_is_from_before_its_order(tmp_path: Path) -> None:
    considered = consider(load_bundle(hand_made_bundle(tmp_path)), market().bars)
    assert considered.decision.action.name == "BUY"
    assert considered.account[PENDING] == 0.0
    assert len(considered.data) == 144 + 2016
    assert considered.encoded.latent.shape[0] == 1


def test_a_trade_is_explained_where_its_orders_were_decided(project: Path) -> None:
    found = explain_trade(project, 1, "scalping")
    stamps = market().bars.close_ts_ns
    # an order fills at the open of the bar after its decision
    assert found.entry.close_ts_ns == stamps[BOUGHT - 1]
    assert found.exit is not None
    assert found.exit.close_ts_ns == stamps[SOLD - 1]
    assert found.left_by == "order"
    assert found.entry.account == "assumed flat with 100,000 USDT; what else was held is not on record"
    assert found.exit.step("risk").facts["lots"] == 1.0
    assert found.exit.step("exit").facts["decisions_since_trade"] == SOLD - 1 - BOUGHT
    held = 0.1 * market().mark[SOLD - 1] / found.trade.entry_price - 0.1
    assert found.exit.step("exit").facts["oldest_return_frac"] == pytest.approx(10 * held)
    assert explanation.agrees(found)


def test_a_trade_is_explained_on_the_clock_of_its_bucket(project: Path) -> None:
    found = explain_trade(project, 1, "medium")
    for reasoning, bar in ((found.entry, BOUGHT), (found.exit, SOLD)):
        assert reasoning is not None
        grid = reasoning.close_ts_ns // BAR_NS
        assert grid % 10 == 0
        assert 1 <= market().bars.close_ts_ns[bar] // BAR_NS - grid <= 10


def test_a_lot_that_left_before_the_next_decision_has_no_exit_to_explain(project: Path) -> None:
    assert explain_trade(project, 2, None).exit is None


def test_an_order_is_decided_its_latency_and_any_gap_before_it_fills() -> None:
    _, rules = bucket_of("short")  # patch 2
    stamps = BAR_NS * np.arange(100, 120)  # rows of even stamps decide: even rows
    present = np.ones(20, np.bool_)
    bars = replace(market().bars, close_ts_ns=stamps, present=present)
    assert decision_before(bars, 11, rules) == 10
    assert decision_before(bars, 12, rules) == 10
    assert decision_before(bars, 12, rules._replace(latency_bars=1)) == 10
    assert decision_before(bars, 13, rules._replace(latency_bars=2)) == 10
    present[7:11] = False  # decided at row 6, filled in the first bar that is there
    assert decision_before(bars, 11, rules) == 6
    with pytest.raises(ArtifactError, match="before the first decision"):
        decision_before(bars, 0, rules)


def test_a_stop_and_a_target_are_told_from_an_order() -> None:
    _, rules = bucket_of("scalping")
    rules = rules._replace(stop_loss_frac=0.03, take_profit_frac=0.05)
    one = market().bars

    def bars(low: float, high: float) -> Bars:
        return replace(one, low=np.array([low]), high=np.array([high]))

    def trade(exit_price: float, btc: float = 1.0) -> Trade:
        return Trade(
            bucket="scalping",
            number=1,
            entry_ts_ns=0,
            exit_ts_ns=0,
            btc=btc,
            entry_price=100.0,
            exit_price=exit_price,
            profit_usdt=0.0,
            net_return=0.0,
        )

    assert left_by(trade(96.9), bars(96.0, 99.0), 0, rules) == "stop"  # below 97, less slippage
    assert left_by(trade(98.0), bars(96.0, 99.0), 0, rules) == "order"  # sold at the open, before the stop
    assert left_by(trade(105.0), bars(104.0, 106.0), 0, rules) == "target"
    assert left_by(trade(104.5), bars(104.0, 104.9), 0, rules) == "order"
    assert left_by(trade(103.1, btc=-1.0), bars(101.0, 104.0), 0, rules) == "stop"  # short: above 103
    assert left_by(trade(95.0, btc=-1.0), bars(94.0, 96.0), 0, rules) == "target"
    without = rules._replace(stop_loss_frac=0.0, take_profit_frac=0.0)
    assert left_by(trade(50.0), bars(50.0, 99.0), 0, without) == "order"


def test_a_trade_that_is_not_there_names_those_that_are(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"1 \.\. 2 of scalping, 1 \.\. 1 of medium\), was 7; see"):
        find_trade(project, 7, None)
    with pytest.raises(ArtifactError, match="trade 1 is one of scalping, medium; name one with --bucket"):
        find_trade(project, 1, None)
    with pytest.raises(ArtifactError, match=r"1 \.\. 2 of scalping, .*, was 1 of long; see"):
        find_trade(project, 1, "long")
    assert find_trade(project, 2, None).bucket == "scalping"


def test_where_no_bucket_traded_a_decision_can_be_explained(project: Path) -> None:
    path = project / explanation.TRADES
    pd.read_csv(path).iloc[:0].to_csv(path, index=False)
    with pytest.raises(ArtifactError, match=r"no bucket traded .*: btcai explain --bucket medium --bars FILE"):
        find_trade(project, 3, "medium")


def test_trades_that_cannot_be_read_say_what_makes_them(project: Path) -> None:
    path = project / explanation.TRADES
    path.write_text("bucket,number\nscalping,1\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"must hold bucket, number and entry_ts_ns, .* misses btc"):
        read_trades(project)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ArtifactError, match="make it again with: btcai stage evaluate"):
        read_trades(project)
    row = trade_row("scalping", 1, BOUGHT, SOLD, 1.0) | {"entry_ts_ns": 5}
    pd.DataFrame([row]).to_csv(path, index=False)
    with pytest.raises(ArtifactError, match="is of other bars than artifacts/features"):
        explain_trade(project, 1, None)
    pd.DataFrame([row | {"bucket": "huge"}]).to_csv(path, index=False)
    with pytest.raises(ArtifactError, match="names huge"):
        read_trades(project)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"trades.csv not found; make it with: btcai run"):
        read_trades(project)


def test_a_trade_without_a_bundle_says_how_to_make_one(project: Path) -> None:
    row = trade_row("long", 1, BOUGHT, SOLD, 1.0)
    pd.DataFrame([row]).to_csv(project / explanation.TRADES, index=False)
    with pytest.raises(ArtifactError, match="no bundle of long in models/candidate or models/champion"):
        explain_trade(project, 1, None)


def test_the_command_shows_a_trade(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain.explain(1, bucket="scalping", bars=None, account=None)
    shown = capsys.readouterr().out
    for part in ("Trade 1 of scalping: 0.10000 BTC bought at", "left by order at", "after 3.3 h", "As it was entered",
                 "As it was left", "support resistance", "assumed to hold this lot alone"):  # fmt: skip
        assert part in shown
    assert "decided otherwise" not in shown
    explain.explain(2, bucket=None, bars=None, account=None)
    assert "came before the next decision" in capsys.readouterr().out


def test_the_command_line_gives_a_trade_as_json(project: Path) -> None:
    app = typer.Typer()
    app.command()(explain.explain)
    done = CliRunner().invoke(app, ["1", "--bucket", "scalping", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["trade"]["number"] == 1
    assert found["left_by"] == "order"
    assert found["entry"]["action"] == "BUY"
    assert [len(found[name]["steps"]) for name in ("entry", "exit")] == [13, 13]


def test_a_backtest_that_decided_otherwise_is_admitted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hand_made_bundle(project / paths.CANDIDATE / "scalping", logits=(2.0, 0.0, 0.0, 0.0))
    explain.explain(1, bucket="scalping", bars=None, account=None)
    assert "decided otherwise than the one assumed here" in capsys.readouterr().out


def test_the_command_explains_a_decision_now(champion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain.explain(None, bucket="scalping", bars=champion / "bars.csv", account=None)
    shown = capsys.readouterr().out
    assert "flat with 100,000 USDT (no --account given)" in shown
    assert "Its bar: closed" in shown
    (champion / "account.json").write_text('{"cash_usdt": 5}', encoding="utf-8")
    explain.explain(
        None, bucket="scalping", bars=champion / "bars.csv", account=champion / "account.json", as_json=True
    )
    found = json.loads(capsys.readouterr().out)
    assert found["account"].endswith("account.json")
    assert next(step for step in found["steps"] if step["name"] == "risk")["facts"]["equity_usdt"] == 5.0


def test_a_folder_of_the_projects_market_is_decided_and_explained_on(
    champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_market(champion / paths.DATA, "simulated", frame())
    shown = []
    for bars in (champion / "bars.csv", Path("data/simulated")):
        explain.explain(None, bucket="scalping", bars=bars, account=None)
        shown.append(capsys.readouterr().out)
        decide_command.decide(bucket="scalping", bars=bars)
        shown.append(capsys.readouterr().out)
    assert shown[:2] == shown[2:]


def test_an_account_with_a_lot_beyond_its_stop_is_told_so(champion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, mark = champion / "account.json", float(market().mark[-1])
    for lots, said in (
        (1, "; a lot lies beyond its stop: it would"),
        (2, "; 2 lots lie beyond their stops: they would"),
    ):
        held = {"cash_usdt": 50_000, "lots": [{"btc": 0.1, "entry_price": 2 * mark}] * lots}
        path.write_text(json.dumps(held), encoding="utf-8")
        decide_command.decide(bucket="scalping", bars=champion / "bars.csv", account=path)
        assert said in capsys.readouterr().out.replace("\n", " ")
    path.write_text(json.dumps({"cash_usdt": 1, "lots": [{"btc": 0.1, "entry_price": mark}]}), encoding="utf-8")
    decide_command.decide(bucket="scalping", bars=champion / "bars.csv", account=path)
    assert "beyond" not in capsys.readouterr().out


def test_the_command_says_what_it_needs(project: Path) -> None:
    with pytest.raises(DataError, match="needs a trade's number, or --bucket and --bars"):
        explain.explain(None, bucket="scalping", bars=None, account=None)
    with pytest.raises(DataError, match="explained on its own bars"):
        explain.explain(1, bucket="scalping", bars=project / "bars.csv", account=None)
    assert set(TRADE_COLUMNS) | {"bucket", "number"} == set(Trade.__dataclass_fields__)
