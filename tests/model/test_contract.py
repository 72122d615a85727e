"""A bundle's contract, as it is written down: whoever follows it alone decides as btcai does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from export_fakes import change_manifest, exported, frame, hand_made_bundle, loud_bundle, market
from learning_tasks import settings
from scipy.stats import norm
from serving_fakes import cut

from btcai.inference.bundle import GRAPHS, file_sha256, load_bundle
from btcai.inference.decision import decide
from btcai.inference.holdings import Rulebook, account_at_close, settle
from btcai.market.account import CASH, EQUITY, HALT, NO_ORDER, PEAK_EQUITY, PENDING, SINCE_TRADE, START_EQUITY
from btcai.market.risk import NO_HALT
from btcai.market.rules import Rules, make_rules
from btcai.market.single import observe_one
from btcai.market.sizing import lot_sizes
from btcai.schema import ACCOUNT_FEATURES, QUANTILE_LEVELS, Action, Decision
from btcai.training import contract
from btcai.training.export import fuse

README = Path(__file__).parents[2] / "mlflow/README.md"
NAMESPACE = {name: getattr(np, name) for name in ("clip", "mean", "sqrt", "log1p", "isfinite")} | {"norm": norm}


def fused(folder: Path) -> Path:
    """The bundle with a policy.onnx of its own two graphs."""
    onnx.save(fuse(onnx.load(folder / "encoder.onnx"), onnx.load(folder / "head.onnx")), folder / "policy.onnx")
    change_manifest(folder, sha256={name: file_sha256(folder / name) for name in GRAPHS})
    return folder


def run_the_readme(folder: Path, stop: int) -> dict[str, Any]:
    """mlflow/README.md's code in `folder`, on the 2,400 bars before bar `stop`; the names that it leaves."""
    frame().iloc[stop - 2_400 : stop].to_parquet(folder / "bars.parquet")
    (code,) = re.findall(r"```python\n(import json\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), found)
    return found


def expect_the_decision(folder: Path, stop: int) -> Decision:
    """That the README's code in `folder` comes to what btcai decides."""
    found = run_the_readme(folder, stop)
    wanted = decide(load_bundle(folder / "model/data/scalping"), cut(market().bars, stop, 2_400))
    assert found["action"] == wanted.action.name
    assert found["outputs"]["probabilities"][0].tolist() == pytest.approx(wanted.probabilities, abs=1e-6)
    if wanted.action is Action.BUY:
        assert found["lot_frac"] == pytest.approx(wanted.size_frac, rel=1e-5)
    for forecast in wanted.forecasts:
        assert len(forecast.quantiles) == len(QUANTILE_LEVELS)
        assert found["forecasts"][forecast.horizon_bars] == pytest.approx(forecast.quantiles, rel=1e-4, abs=1e-7)
    return wanted


def test_the_readmes_code_decides_as_btcai_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fused(loud_bundle(tmp_path / "model/data/scalping", seed=1))
    assert {expect_the_decision(tmp_path, stop).action for stop in (8_000, 8_008, 8_016)} == {Action.HOLD, Action.BUY}


def test_the_readmes_code_buys_nothing_that_sizing_forbids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, doubt in {"unfamiliar": {"unfamiliarity": 9.0}, "in doubt": {"std": 0.9}}.items():
        fused(hand_made_bundle(tmp_path / name / "model/data/scalping", **doubt))
        monkeypatch.chdir(tmp_path / name)
        assert expect_the_decision(tmp_path / name, 8_000).action is Action.HOLD
    monkeypatch.chdir(tmp_path)
    fused(hand_made_bundle(tmp_path / "model/data/scalping"))
    assert expect_the_decision(tmp_path, 8_000).action is Action.BUY  # the same graph without a doubt


def rules_of(allow_short: bool) -> Rules:
    """Of a swap where lots may be sold short, else of spot."""
    config = settings()
    rules = make_rules(config.buckets["medium"], config.market, config.risk)
    return rules._replace(perpetual=allow_short, allow_short=allow_short)


WAITS: list[dict[str, Any]] = [{}, {"order_pending": "exit"}, {"cool_down_bars": 3}]


@pytest.mark.parametrize("allow_short", [False, True])
@pytest.mark.parametrize("waits", WAITS, ids=["free", "an order waits", "halted"])
@pytest.mark.parametrize("cash_usdt", [5.0, 60_000.0, 96_000.0])
@pytest.mark.parametrize("lots", [[], [(0.5, 25_000.0), (0.1, 31_000.0)]], ids=["flat", "invested"])
def test_the_accounts_formulas_are_those_of_the_market(
    cash_usdt: float, lots: list[tuple[float, float]], waits: dict[str, Any], allow_short: bool
) -> None:
    rules = rules_of(allow_short)
    book, mark, sigma = Rulebook.of(rules), 30_000.0, 0.004
    described = {
        "cash_usdt": cash_usdt,
        "lots": [{"btc": btc, "entry_price": price} for btc, price in lots],
        "equity_start_usdt": 80_000.0,
        "peak_equity_usdt": 97_000.0,
        "decisions_since_trade": 7,
        **waits,
    }
    row, rows = account_at_close(described, book, mark, 19_000)
    observed = np.empty((1, len(ACCOUNT_FEATURES)), np.float32)
    observe_one(row, rows, mark, sigma, book.record, observed)
    names = NAMESPACE | rules._asdict() | {"mark": mark, "sigma": sigma, "lots": len(lots)}
    names |= {"cash": row[CASH], "equity": row[EQUITY], "peak_equity": row[PEAK_EQUITY]}
    names |= {"start_equity": row[START_EQUITY], "decisions_since_fill": row[SINCE_TRADE]}
    names["entry"] = np.array([price for _, price in lots])
    names |= {"order_waits": row[PENDING] != NO_ORDER, "halted": row[HALT] != NO_HALT}
    names["least"] = eval(contract.LEAST, dict(names))
    names["can_open"] = eval(contract.CAN_OPEN, dict(names))
    assert tuple(contract.ACCOUNT) == ACCOUNT_FEATURES
    said = [eval(formula, dict(names)) for formula in contract.ACCOUNT.values()]
    assert observed[0].tolist() == pytest.approx(said, rel=1e-6)
    assert row[EQUITY] == cash_usdt + sum(btc * mark for btc, _ in lots)


@pytest.mark.parametrize("mean", [-0.01, 0.0, 0.004])
@pytest.mark.parametrize("std", [0.005, 0.2])
@pytest.mark.parametrize("strategy", contract.SIZE_FRAC)
def test_the_formula_of_a_lot_is_that_of_sizing(strategy: str, std: float, mean: float) -> None:
    sizing = settings().sizing.model_copy(update={"strategy": strategy})
    sigma, horizon_bars, max_lots = 0.003, 12, 15
    wanted, _ = lot_sizes(*(np.array([x]) for x in (mean, std, sigma, 0.5)), horizon_bars, max_lots, sizing)
    names = {"mean": mean, "std": std, "sigma": sigma, "uncertainty": std / (sigma * horizon_bars**0.5)}
    names |= {"max_lots": max_lots, "target_volatility": sizing.target_volatility}
    assert eval(contract.SIZE_FRAC[strategy], NAMESPACE | names) == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("broken", ["mean", "std", "sigma", "none", "unfamiliar", "in doubt", "std 0", "sigma 0"])
def test_an_entry_is_allowed_where_sizing_says_so(broken: str) -> None:
    config = settings()
    names = {"mean": 0.001, "std": 0.01, "sigma": 0.003, "unfamiliarity": 0.5}
    names |= {"unfamiliar": {"unfamiliarity": 9.0}, "in doubt": {"std": 0.9}}.get(broken, {})
    names |= {"std 0": {"std": 0.0}, "sigma 0": {"sigma": 0.0}}.get(broken, {})
    names |= {broken: np.nan} if broken in names else {}
    _, (wanted,) = lot_sizes(*(np.array([value]) for value in names.values()), 12, 15, config.sizing)
    with np.errstate(divide="ignore"):
        names["uncertainty"] = float(np.divide(names["std"], names["sigma"] * 12**0.5))
    said = contract._decision(config.buckets["medium"], config.sizing)["entry_allowed"]
    assert eval(said, NAMESPACE | names) == wanted == (broken == "none")


@pytest.mark.parametrize(("btc", "allow_short"), [(0.0, False), (0.1, False), (-0.1, True), (0.0, True), (0.1, True)])
@pytest.mark.parametrize("action", [Action.BUY, Action.SELL, Action.CLOSE_ALL])
def test_what_opens_a_lot_is_stopped_by_sizing_and_what_closes_one_is_not(
    action: Action, btc: float, allow_short: bool
) -> None:
    book = Rulebook.of(rules_of(allow_short))
    described = {"cash_usdt": 100_000.0, "lots": [{"btc": btc, "entry_price": 30_000.0}] if btc else []}
    row, lots = account_at_close(described, book, 30_000.0, 19_000)
    taken = {
        (size_frac, allowed): settle(row.copy(), lots, action, size_frac, allowed, book)[0]
        for size_frac in (0.0, 0.02)
        for allowed in (False, True)
    }
    opens = eval(contract.OPENS, {"action": action.name, "btc": btc, "allow_short": allow_short})
    if btc == 0.0 and not opens:  # can_sell is 0: there is nothing to close
        assert set(taken.values()) == {Action.HOLD}
        return
    stopped = dict.fromkeys(taken, Action.HOLD) | {(0.02, True): action}
    assert taken == (stopped if opens else dict.fromkeys(taken, action))


@pytest.mark.slow
class TestExported:
    @pytest.fixture
    def folder(self) -> Path:
        return exported("scalping")[1]

    def test_types_and_shapes_are_those_of_the_graphs(self, folder: Path) -> None:
        io = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["io"]
        assert set(io["graphs"]) == set(GRAPHS)
        for name, said in io["graphs"].items():
            session = onnxruntime.InferenceSession(folder / name)
            for side, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
                assert {key: value["shape"] for key, value in said[side].items()} == {
                    value.name: value.shape for value in found
                }
                for value in said[side].values():
                    assert value["dtype"] == "float32"
                    assert value.keys() >= {"what", "unit", "order"}
            meta = session.get_modelmeta()
            assert json.loads(meta.custom_metadata_map["io"]) == said
            assert meta.description == contract.READ_FIRST == io["read_first"]

    def test_it_says_that_nothing_is_left_to_scale_or_to_calibrate(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        policy = manifest["io"]["graphs"]["policy.onnx"]
        assert policy["inputs"]["tokens"]["scaler_applied_in_graph"] is True
        assert "exactly 144 patches, and one decision time" in policy["inputs"]["tokens"]["what"]
        assert "at least 144 patches" in manifest["io"]["graphs"]["encoder.onnx"]["inputs"]["tokens"]["what"]
        for name in ("mean", "std", "quantiles"):
            assert policy["outputs"][name]["calibration_applied_in_graph"] is True
        assert policy["outputs"]["probabilities"]["order"] == [action.name for action in Action]
        assert manifest["scaler"]["applied_in_graph"] is manifest["calibration"]["applied_in_graph"] is True
        assert manifest["io"]["decision"]["size_frac"] == contract.SIZE_FRAC[settings().sizing.strategy]

    def test_the_readmes_code_decides_with_it_as_btcai_does(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "model/data").mkdir(parents=True)
        (tmp_path / "model/data/scalping").symlink_to(folder)
        monkeypatch.chdir(tmp_path)
        said = [expect_the_decision(tmp_path, stop).probabilities for stop in range(8_000, 8_200, 20)]
        assert np.ptp(said, axis=0).max() > 0.01  # the network is not of one opinion
