"""A bundle as MLflow's python function: raw bars in, the decision out, as `btcai decide` makes it. No mlflow here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from btcai.data.cells import numbers, open_ms
from btcai.data.checks import check_bars, check_spacing
from btcai.data.frame import make_frame, parts, sort_unique
from btcai.data.sources import clock_ms
from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.inference.decision import decide
from btcai.schema import QUANTILE_LEVELS, RAW_COLUMNS, Action, Bars, Decision, Forecast

GIVEN = "the given bars"
PROBABILITIES = tuple(f"p_{action.name.lower()}" for action in Action)


class DecisionModel:
    """What `mlflow.pyfunc.load_model` wraps: one call is one decision, nothing is kept between calls."""

    def __init__(self, bundle: PolicyBundle, edge: str) -> None:
        self.bundle = bundle
        self.edge = edge

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """5-minute bars with RAW_COLUMNS, the newest lookback and warm-up at least -> the decision, one row.

        open_time is UTC: stamps, ISO 8601 text or numbers since 1970. params["account"] describes the account as
        JSON, as for `btcai decide --account`; "" is a flat one. DataError names what is wrong with either.
        """
        account = _account((params or {}).get("account", ""))
        return pd.DataFrame([decision_row(decide(self.bundle, bars_of(model_input), account), self.edge)])


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> DecisionModel:
    """MLflow calls this with the folder of the bundle and what the version was registered with."""
    return DecisionModel(load_bundle(Path(path)), str((model_config or {}).get("edge", "none")))


def bars_of(table: pd.DataFrame) -> Bars:
    """A frame with RAW_COLUMNS, judged as a file of bars is -> bars on the grid; DataError names the first bad row."""
    if missing := [name for name in RAW_COLUMNS if name not in table.columns]:
        raise DataError(f"bars must have the columns {', '.join(RAW_COLUMNS)}, missing: {', '.join(missing)}; add them")
    time, *titles = RAW_COLUMNS
    stamps = open_ms(GIVEN, time, _arrow(table[time]))
    values = np.column_stack([numbers(GIVEN, title, _arrow(table[title])) for title in titles])
    check_bars(GIVEN, stamps, values, clock_ms())
    frame, kept = sort_unique(make_frame(stamps, values), _place, "remove the wrong row")
    check_spacing(parts(frame)[0], lambda bar: _place(int(kept[bar])))
    return to_grid(frame)


def _arrow(cells: "pd.Series[Any]") -> pa.ChunkedArray:
    """A column as the readers of files take it, where a blank is null."""
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        cells = cells.dt.tz_convert(None)  # to UTC
    try:
        return pa.chunked_array([pa.array(cells)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{GIVEN}: {cells.name} must be of one type: {error}; mend the column") from error


def _place(row: int) -> str:
    return f"data row {row + 1} of {GIVEN}"


def _account(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"params account must be JSON ({error}); as for btcai decide --account") from error
    if not isinstance(found, dict):
        raise DataError(
            f"params account must be one JSON object, was a {type(found).__name__}; see btcai decide --help"
        )
    return found


def decision_row(decision: Decision, edge: str) -> dict[str, Any]:
    """A decision as one flat row: what was decided, how likely each action was, the forecasts, what it rests on."""
    row = {
        "bucket": decision.bucket,
        "close_time": pd.Timestamp(decision.close_ts_ns, unit="ns", tz="UTC"),
        "action": decision.action.name,
        "size_frac": decision.size_frac,
        **dict(zip(PROBABILITIES, decision.probabilities, strict=True)),
        "value": decision.value,
        "unfamiliarity": decision.unfamiliarity,
        "note": decision.note,
        "edge": edge,
        "model_version": decision.model_version,
        "data_version": decision.data_version,
    }
    for forecast in decision.forecasts:
        row |= dict(zip(forecast_names(forecast.horizon_bars), _numbers(forecast), strict=True))
    return row


def forecast_names(horizon_bars: int) -> list[str]:
    """3 -> forecast_3_mean, forecast_3_std, forecast_3_q05 .. forecast_3_q95: of the log return over so many bars."""
    parts = ("mean", "std", *(f"q{round(100 * level):02d}" for level in QUANTILE_LEVELS))
    return [f"forecast_{horizon_bars}_{part}" for part in parts]


def _numbers(forecast: Forecast) -> tuple[float, ...]:
    return (forecast.mean, forecast.std, *forecast.quantiles)
