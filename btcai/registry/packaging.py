"""A bundle as an MLflow model: raw bars in, decision out, with the code and the packages that it takes. No pickle."""

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from btcai.config import BucketConfig
from btcai.data.frame import VALUE_COLUMNS, make_frame
from btcai.errors import ArtifactError
from btcai.features.table import WARMUP_BARS
from btcai.inference import pyfunc
from btcai.records.champions import Edge
from btcai.records.versions import PACKAGE
from btcai.schema import BAR_NS, RAW_COLUMNS, Bars

REQUIREMENTS = ("llvmlite", "numba", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic")
"""What btcai.inference.pyfunc imports, through all that it imports; MLflow adds itself."""


class Logged(NamedTuple):
    """MLflow's ModelInfo, the bundle's own version, and what it decides (answer, one row) on raw bars."""

    info: Any
    version: str
    bars: pd.DataFrame
    answer: pd.DataFrame


def log_bundle(folder: Path, settings: BucketConfig, edge: Edge, unsealed: Bars) -> Logged:
    """Log the bundle in `folder` as a model of the active run.

    The model keeps the bundle's files as they are (data/BUCKET), this package (code/btcai), a signature and an input
    example cut from `unsealed`. Its files and its example are loaded back and must decide as the bundle does, else
    ArtifactError; in this process the code that decides is the one already imported.
    """
    import mlflow

    with _search_path_kept():
        logged = mlflow.pyfunc.log_model(
            name=folder.name,
            loader_module=pyfunc.__name__,
            data_path=str(folder),
            code_paths=[str(PACKAGE)],
            signature=signature(settings),
            input_example=example(unsealed, settings),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
            model_config={"edge": edge},
        )
        loaded = mlflow.pyfunc.load_model(logged.model_uri)
    shown = loaded.input_example
    direct = pyfunc._load_pyfunc(str(folder), {"edge": edge}).predict(shown)
    if not loaded.predict(shown).equals(direct):
        raise ArtifactError(
            f"the model logged from {folder} decides otherwise than the bundle; register again with: btcai run"
        )
    return Logged(logged, str(direct["model_version"][0]), shown, direct)


@contextmanager
def _search_path_kept() -> Iterator[None]:
    """Loading puts a model's code first on the search path, for good; here this project's own stays first."""
    before = sys.path
    try:
        yield
    finally:
        sys.path = before


def example(unsealed: Bars, settings: BucketConfig) -> pd.DataFrame:
    """The newest bars that a decision takes, as raw bars; the clock may drop up to patch_bars - 1 of them."""
    rows = np.flatnonzero(unsealed.present)[-(settings.lookback_bars + WARMUP_BARS + settings.patch_bars - 1) :]
    open_ms = (unsealed.close_ts_ns[rows] - BAR_NS) // 1_000_000
    return make_frame(open_ms, np.column_stack([getattr(unsealed, name)[rows] for name in VALUE_COLUMNS]))


def signature(settings: BucketConfig) -> Any:
    """Bars in, one row out, an optional account; open_time is of any type, as MLflow's datetime refuses UTC stamps."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    time, *values = RAW_COLUMNS
    text, number = DataType.string, DataType.double
    forecasts = [name for horizon in settings.horizons_bars for name in pyfunc.forecast_names(horizon)]
    columns = {
        "bucket": text,
        "close_time": DataType.datetime,
        "action": text,
        **dict.fromkeys(("size_frac", *pyfunc.PROBABILITIES, "value", "unfamiliarity"), number),
        **dict.fromkeys(("note", "edge", "model_version", "data_version"), text),
        **dict.fromkeys(forecasts, number),
    }
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), time), *(ColSpec(number, name) for name in values)]),  # type: ignore[no-untyped-call]
        outputs=Schema([ColSpec(kind, name) for name, kind in columns.items()]),
        params=ParamSchema([ParamSpec("account", DataType.string, "")]),
    )
