"""Which folded windows the formulas of each family read."""

from collections.abc import Callable

from btcai.features import columns
from btcai.features.folds import Folds
from btcai.schema import Float32Array


def _returns(out: Float32Array, rows: Folds) -> None:
    columns.returns(out, rows.leaves.log_close, rows.leaves.known_from, rows.sigma)


def _volatility(out: Float32Array, rows: Folds) -> None:
    columns.volatility(
        out,
        rows.sigma,
        rows.std(12),
        rows.std(72),
        rows.std(288),
        rows.std(2016),
        rows.mean("range_square", 72),
        rows.mean("pair_magnitude", 288),
        rows.mean("pair_scale", 288),
        rows.mean("move_signed_square", 288),
        rows.mean("move_square", 288),
    )


def _ranges(out: Float32Array, rows: Folds) -> None:
    columns.ranges(
        out,
        rows.sigma,
        rows.leaf("open"),
        rows.leaf("high"),
        rows.leaf("low"),
        rows.leaf("close"),
        rows.extremes(288),
        rows.extremes(2016),
    )


def _volumes(out: Float32Array, rows: Folds) -> None:
    columns.volumes(
        out,
        rows.sigma,
        rows.leaf("volume"),
        rows.mean("volume", 12),
        rows.mean("volume", 288),
        rows.mean("volume", 2016),
        rows.mean("signed_volume", 12),
        rows.mean("signed_volume", 72),
        rows.mean("located_volume", 72),
        rows.mean("volume", 72),
        columns.correlation_of(
            rows.mean("moved_volume", 288),
            rows.mean("moved_volume_square", 288),
            rows.mean("move_size", 288),
            rows.mean("move_square", 288),
            rows.mean("volume_move", 288),
        ),
        rows.mean("close", 288),
        rows.mean("traded_value", 288),
    )


def _trend(out: Float32Array, rows: Folds) -> None:
    out[:] = rows.line(72)[2], rows.line(288)[2], rows.line(2016)[2]


def _momentum(out: Float32Array, rows: Folds) -> None:
    columns.momentum(
        out,
        rows.mean("rise", 14),
        rows.mean("change_size", 14),
        rows.mean("move", 72),
        rows.mean("move_size", 72),
        rows.mean("move", 288),
        rows.mean("move_size", 288),
    )


def _reversion(out: Float32Array, rows: Folds) -> None:
    columns.reversion(out, rows.leaf("close"), rows.line(20)[:2], rows.line(144)[:2])


def _microstructure(out: Float32Array, rows: Folds) -> None:
    columns.microstructure(
        out,
        rows.sigma,
        rows.mean("pair_product", 72),
        rows.mean("spread", 288),
        rows.mean("move_size", 72),
        rows.mean("move_size", 2016),
        rows.mean("traded_value", 72),
        rows.mean("traded_value", 2016),
    )


def _regime(out: Float32Array, rows: Folds) -> None:
    columns.regime(
        out,
        rows.sigma,
        rows.mean("pair_product", 288),
        rows.mean("pair_scale", 288),
        rows.mean("move_square_12", 288),
        rows.mean("move_square", 288),
        *rows.extremes(288),
    )


def _calendar(out: Float32Array, rows: Folds) -> None:
    columns.calendar(out, rows.close_ts_ns)


FILLS: dict[str, Callable[[Float32Array, Folds], None]] = {
    "returns": _returns,
    "volatility": _volatility,
    "range": _ranges,
    "volume": _volumes,
    "trend": _trend,
    "momentum": _momentum,
    "mean reversion": _reversion,
    "microstructure": _microstructure,
    "regime": _regime,
    "calendar": _calendar,
}
"""family: function that writes its columns (columns of the family, rows), nan where undefined."""
