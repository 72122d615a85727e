"""Live features: bar by bar the bits of the batch, over gaps and a restart; what is refused."""

from pathlib import Path

import numpy as np
import pytest
from feature_bars import real_bars, walk, without

from btcai.errors import DataError
from btcai.features import stream as stream_module
from btcai.features.pipeline import build_market, rows_of
from btcai.features.stream import FeatureRow, FeatureStream
from btcai.features.table import WARMUP_BARS
from btcai.schema import BAR_NS, Bars, MarketData


def push(stream: FeatureStream, bars: Bars, row: int) -> FeatureRow:
    return stream.push(
        close_ts_ns=int(bars.close_ts_ns[row]),
        open=float(bars.open[row]),
        high=float(bars.high[row]),
        low=float(bars.low[row]),
        close=float(bars.close[row]),
        volume=float(bars.volume[row]),
    )


def assert_same_row(got: FeatureRow, batch: MarketData, row: int) -> None:
    np.testing.assert_array_equal(got.features.view(np.int32), batch.features[row].view(np.int32))
    assert (got.close_ts_ns, got.mark, got.sigma) == (batch.bars.close_ts_ns[row], batch.mark[row], batch.sigma[row])


def replay(bars: Bars, first: int, stop: int, restart: int) -> None:
    """Rows first .. stop - 1 one at a time, in the middle a new stream of the last bars; missing bars do not come."""
    batch = build_market(bars)
    stream = FeatureStream(rows_of(bars, slice(0, first)))
    seen = 0
    for row in range(first, stop):
        if row == restart:
            stream = FeatureStream(stream.history)
        if bars.present[row]:
            assert_same_row(push(stream, bars, row), batch, row)
            seen += 1
    assert seen > 0.9 * (stop - first)


def test_bar_by_bar_equals_the_batch_over_gaps_a_restart_and_a_full_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "CAPACITY_ROWS", WARMUP_BARS + 100)
    bars = walk(2700, seed=30, missing=0.02)
    bars = without(bars, (np.arange(2700) >= 2300) & (np.arange(2700) < 2320))
    replay(bars, first=2100, stop=2700, restart=2410)


@pytest.mark.real
@pytest.mark.slow
def test_ten_thousand_real_bars_equal_the_batch_over_the_gaps_and_a_restart(real_bars_path: Path) -> None:
    bars = real_bars(real_bars_path)
    gap = int(np.flatnonzero(~bars.present)[0])
    part = rows_of(bars, slice(gap - 6000, gap + 7000))
    assert not part.present[3000:13_000].all()
    replay(part, first=3000, stop=13_000, restart=8000)


def test_after_an_outage_longer_than_the_warm_up_the_stream_goes_on_as_the_batch_does() -> None:
    n = 2100 + 3000
    bars = without(walk(n, seed=32), (np.arange(n) >= 2050) & (np.arange(n) < 5000))
    batch = build_market(bars)
    stream = FeatureStream(rows_of(bars, slice(0, 2050)))
    for row in range(5000, 5010):
        assert_same_row(push(stream, bars, row), batch, row)


def test_too_little_history_is_refused() -> None:
    with pytest.raises(DataError, match=r"features need 2016 bars of history, was 2015; fetch more with: btcai data"):
        FeatureStream(walk(2015, seed=33))


@pytest.mark.parametrize("step_ns", [0, -BAR_NS, BAR_NS + 1, BAR_NS // 2])
def test_a_stamp_that_is_not_later_or_off_the_grid_is_refused_and_the_stream_stays_as_it_was(step_ns: int) -> None:
    bars = walk(2100, seed=34)
    stream = FeatureStream(rows_of(bars, slice(0, 2090)))
    with pytest.raises(DataError, match="a bar must close a multiple of 300000000000 ns after the last one"):
        stream.push(
            close_ts_ns=int(bars.close_ts_ns[2089]) + step_ns, open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0
        )
    assert_same_row(push(stream, bars, 2090), build_market(bars), 2090)


def test_an_unsound_bar_is_refused_and_the_stream_stays_as_it_was() -> None:
    bars = walk(2100, seed=35)
    stream = FeatureStream(rows_of(bars, slice(0, 2090)))
    close_ts_ns = int(bars.close_ts_ns[2092])
    for open_, high, low, close in ((1.0, 1.0, 0.0, 1.0), (40_000.0, 40_010.0, 39_990.0, 90_000.0)):
        with pytest.raises(DataError, match="present bars need finite prices, 0 < low <= open, close <= high, and"):
            stream.push(close_ts_ns=close_ts_ns, open=open_, high=high, low=low, close=close, volume=1.0)
    assert_same_row(push(stream, bars, 2090), build_market(bars), 2090)
