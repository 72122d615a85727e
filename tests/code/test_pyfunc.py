"""The registered model: the same decision as `btcai decide`, from any frame of bars, with all that it takes inside."""

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from export_fakes import frame, hand_made_bundle, loud_bundle, market, newest_bars
from learning_tasks import settings

from btcai.data.sources import read_bars
from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide
from btcai.inference.pyfunc import DecisionModel, decision_row, forecast_names
from btcai.registry import packaging
from btcai.schema import TOKENS, Bars

ACCOUNT = {"cash_usdt": 40_000.0, "lots": [{"btc": 0.5, "entry_price": 25_000.0}]}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loud_bundle(tmp_path_factory.mktemp("scalping"))


@pytest.fixture(scope="module")
def model(folder: Path) -> DecisionModel:
    return DecisionModel(load_bundle(folder), "none")


def newest(n: int = TOKENS + WARMUP_BARS, stop: int = 9000) -> pd.DataFrame:
    return frame().iloc[stop - n : stop].reset_index(drop=True)


@pytest.mark.parametrize("bucket", ["scalping", "medium"])
@pytest.mark.parametrize("account", [None, ACCOUNT], ids=["flat", "invested"])
@pytest.mark.parametrize("stop", [9000, 9007])
def test_the_decision_is_the_one_made_from_the_same_file(
    tmp_path: Path, bucket: str, account: dict[str, object] | None, stop: int
) -> None:
    bars = newest(6000, stop)
    bars.to_parquet(tmp_path / "bars.parquet")
    bundle = load_bundle(loud_bundle(tmp_path, bucket))
    decision = decide(bundle, to_grid(read_bars(tmp_path / "bars.parquet")), account)
    params = {"account": json.dumps(account)} if account else {"account": ""}
    row = DecisionModel(bundle, "proven").predict(bars, params).iloc[0].to_dict()
    assert row == decision_row(decision, "proven")
    assert [row["p_hold"], row["p_buy"], row["p_sell"], row["p_close_all"]] == list(decision.probabilities)
    assert row["close_time"].value == decision.close_ts_ns
    for forecast in decision.forecasts:
        names = forecast_names(forecast.horizon_bars)
        assert [row[name] for name in names] == [forecast.mean, forecast.std, *forecast.quantiles]


def test_the_row_has_these_columns(model: DecisionModel) -> None:
    decided = ["bucket", "close_time", "action", "size_frac", "p_hold", "p_buy", "p_sell", "p_close_all", "value"]
    decided.append("unfamiliarity")
    rests_on = ["note", "edge", "model_version", "data_version"]
    parts = ["mean", "std", "q05", "q10", "q25", "q50", "q75", "q90", "q95"]
    forecasts = [f"forecast_{horizon}_{part}" for horizon in (3, 12, 36) for part in parts]
    row = model.predict(newest())
    assert list(row.columns) == decided + rests_on + forecasts
    assert list(row.columns) == packaging.signature(settings().buckets["scalping"]).outputs.input_names()
    assert len(row) == 1


def naive(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(open_time=bars.open_time.dt.tz_localize(None))


def text(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(open_time=bars.open_time.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


def epoch(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(open_time=bars.open_time.astype("int64"))


def shuffled_and_repeated(bars: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([bars.sample(frac=1.0, random_state=3), bars.iloc[:5]])


def with_more_columns_in_another_order(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(trades=7)[["trades", *reversed(bars.columns)]]


@pytest.mark.parametrize("given", [naive, text, epoch, shuffled_and_repeated, with_more_columns_in_another_order])
def test_how_the_bars_are_written_does_not_matter(model: DecisionModel, given: object) -> None:
    assert callable(given)
    pd.testing.assert_frame_equal(model.predict(given(newest())), model.predict(newest()))


def broken(column: str, row: int, value: object) -> pd.DataFrame:
    bars = newest()
    bars.loc[row, column] = value
    return bars


@pytest.mark.parametrize(
    ("bars", "error"),
    [
        (newest().drop(columns=["volume", "low"]), "missing: low, volume; add them"),
        (newest(2159), "needs 2160 bars .* was 2159"),
        (broken("open_time", 2, pd.NaT), "the given bars: open_time must be .* was empty in data row 3"),
        (
            newest().astype({"open_time": object}).assign(volume=lambda b: [1.0, "x"] * 1080),
            "volume must be of one type",
        ),
        (broken("high", 1, np.nan), "the given bars: high must be a number.* in data row 2"),
        (
            pd.concat([newest(), newest().assign(volume=1.0)]),
            "two bars of one time .*data row 1 of the given",
        ),
    ],
    ids=["columns", "too_few", "time", "mixed", "number", "disagree"],
)
def test_bars_that_cannot_be_used_are_refused(model: DecisionModel, bars: pd.DataFrame, error: str) -> None:
    with pytest.raises(DataError, match=error):
        model.predict(bars)


@pytest.mark.parametrize(
    ("account", "error"),
    [("{", "must be JSON"), ("[1]", "must be one JSON object"), ('{"cash": 5}', "remove cash")],
)
def test_an_account_that_cannot_be_read_is_refused(model: DecisionModel, account: str, error: str) -> None:
    with pytest.raises(DataError, match=error):
        model.predict(newest(), {"account": account})


def gappy() -> Bars:
    """1,000 bars in the middle are missing."""
    bars = newest_bars(market().bars, 9000, 9000)
    present = bars.present.copy()
    present[7500:8500] = False
    return Bars(**{name: getattr(bars, name) for name in Bars.__dataclass_fields__} | {"present": present})


@pytest.mark.parametrize("bucket", ["scalping", "medium"])
@pytest.mark.parametrize("bars", [newest_bars(market().bars, 9000, 9000), gappy()], ids=["whole", "gap"])
def test_the_example_is_long_enough_and_its_newest_bar_is_the_newest_given(
    tmp_path: Path, bucket: str, bars: Bars
) -> None:
    shown = packaging.example(bars, settings().buckets[bucket])
    assert shown.open_time.iloc[-1] == frame().open_time.iloc[8999]
    row = DecisionModel(load_bundle(loud_bundle(tmp_path, bucket)), "none").predict(shown)
    assert row["bucket"][0] == bucket


@pytest.mark.slow
def test_the_requirements_are_what_deciding_imports(folder: Path) -> None:
    script = (
        "import sys, btcai.inference.pyfunc as p; p._load_pyfunc(sys.argv[1])\n"
        "print(*[m.__file__ for n, m in list(sys.modules.items()) if n.partition('.')[0] == 'btcai'], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], text=True, capture_output=True, check=True)
    roots = {root for file in done.stdout.splitlines() for root in imported_roots(Path(file))}
    names = {packages_distributions()[root][0].lower() for root in roots - set(sys.stdlib_module_names) - {"btcai"}}
    assert names == set(packaging.REQUIREMENTS)


def imported_roots(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}}


ELSEWHERE = """
import sys, warnings
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
import btcai
row = model.predict(model.input_example, params={"account": '{"cash_usdt": 5000}'})
print(btcai.__file__, row["action"][0], row["edge"][0], "torch" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_the_model_decides_where_btcai_is_not_installed(tmp_path: Path) -> None:
    import mlflow

    store, kept = f"sqlite:///{tmp_path}/mlflow.db", (mlflow.get_tracking_uri(), list(sys.path))
    mlflow.set_tracking_uri(store)
    experiment = mlflow.create_experiment("x", artifact_location=(tmp_path / "artifacts").as_uri())
    bundle = hand_made_bundle(tmp_path / "scalping")
    with mlflow.start_run(experiment_id=experiment):
        logged, version, *_ = packaging.log_bundle(bundle, settings().buckets["scalping"], "proven", market().bars)
    mlflow.set_tracking_uri(kept[0])
    assert version == load_bundle(bundle).version
    assert sys.path == kept[1]

    site = Path(mlflow.__file__).parents[1]  # on PYTHONPATH no .pth file is heeded, so this project is not found
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "-c", ELSEWHERE, store, logged.model_uri]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=True)
    code, action, edge, has_torch = done.stdout.split()
    assert Path(code).is_relative_to(tmp_path / "artifacts")
    assert (action, edge, has_torch) == ("BUY", "proven", "False")

    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"encoder.onnx", "head.onnx", "policy.onnx", "manifest.json"}
    assert not [path for path in files if path.suffix in (".pyc", ".pkl")]
    assert sum(path.stat().st_size for path in files if path.suffix != ".nbi" and path.suffix != ".nbc") < 3e6


@pytest.mark.real
def test_real_bars_give_the_decision_of_their_file(tmp_path: Path, real_bars_path: Path) -> None:
    bundle = load_bundle(loud_bundle(tmp_path))
    bars = pd.read_parquet(real_bars_path).tail(TOKENS + WARMUP_BARS).reset_index(drop=True)
    bars.to_parquet(tmp_path / "bars.parquet")
    given = read_bars(tmp_path / "bars.parquet")
    row = DecisionModel(bundle, "none").predict(given).iloc[0].to_dict()
    assert row == decision_row(decide(bundle, to_grid(given)), "none")
