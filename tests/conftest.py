"""Fixtures and settings shared by every test. The environment is set before anything heavy is imported."""

import gc
import logging
import os
import signal
import sys
import threading

from btcai.environment import telemetry_off

gc.disable()  # until all is imported: looking through what stays takes a third of that time
telemetry_off()
os.environ["MPLBACKEND"] = "Agg"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")
for _variable in [name for name in os.environ if name.startswith("BTCAI_MLFLOW_")]:
    del os.environ[_variable]  # a team's server is nowhere to test on
os.environ.pop("PREFECT_HOME", None)  # make's: what tests run has no place in the project's own history

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REAL_BARS = "btcusdt_5m_binance_spot_2022-01_2025-03.parquet"

settings.register_profile("btcai", derandomize=True, deadline=None)
settings.load_profile("btcai")


def pytest_collection_finish() -> None:
    """Garbage is collected again, without looking through what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_bars_path() -> Path:
    """Real 5-minute bars; the test is skipped where this machine has none."""
    folder = os.environ.get("BTCAI_REAL_DATA")
    if not folder:
        pytest.skip("BTCAI_REAL_DATA is not set: it names a folder with real bars")
    path = Path(folder) / REAL_BARS
    if not path.is_file():
        pytest.skip(f"BTCAI_REAL_DATA names a folder without {REAL_BARS}")
    return path


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test set up for logging ends with it."""
    loggers = [logging.getLogger(name) for name in (None, "btcai", "flows", "mlflow")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    factory, hooks = logging.getLogRecordFactory(), (sys.excepthook, threading.excepthook)
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    logging.setLogRecordFactory(factory)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(autouse=True)
def subnormal_numbers() -> None:
    """Training flushes them to zero, for speed and for as long as the process lives; hypothesis draws them."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)
