"""The history cut by time: train, valid, test in folds, sealed, with a purge and an embargo between."""

import math
from dataclasses import dataclass

import numpy as np

from btcai.config import SplitConfig
from btcai.errors import DataError
from btcai.schema import BARS_PER_DAY, IntArray, SealedSpan, Span

FOLD_BARS_MIN = 7 * BARS_PER_DAY
"""Shortest test fold and sealed span: below a week nothing is measured."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Spans of grid rows, oldest first; folds tile test; sealed ends with the history.

    Between train, valid, test and sealed lie at least purge + embargo bars that belong to none.
    """

    train: Span
    valid: Span
    test: Span
    folds: tuple[Span, ...]
    sealed: SealedSpan

    def after(self, n_bars: int, warmup_bars: int) -> "Splits":
        """The same spans of a market with n_bars more to train on before its first bar: train begins there."""

        def later(span: Span) -> Span:
            return Span(span.first + n_bars, span.stop + n_bars)

        return Splits(
            train=Span(warmup_bars, self.train.stop + n_bars),
            valid=later(self.valid),
            test=later(self.test),
            folds=tuple(map(later, self.folds)),
            sealed=SealedSpan(self.sealed.first + n_bars, self.sealed.stop + n_bars),
        )

    def printed(self, close_ts_ns: IntArray) -> str:
        """A table of the spans: first row, bars, and the UTC close of the first and the last bar. close_ts_ns (T,)."""
        named: list[tuple[str, Span | SealedSpan]] = []
        named += [("train", self.train), ("valid", self.valid), ("test", self.test)]
        named += [(f"  fold {number}", fold) for number, fold in enumerate(self.folds, start=1)]
        named.append(("sealed", self.sealed))
        lines = [f"{'span':<9}{'first':>10}{'bars':>10}  {'first close, UTC':<18}{'last close, UTC':<16}"]
        for name, span in named:
            since, until = (_minute(close_ts_ns[row]) for row in (span.first, span.stop - 1))
            lines.append(f"{name:<9}{span.first:>10,}{len(span):>10,}  {since:<18}{until:<16}")
        return "\n".join(lines)


def make_splits(n_bars: int, config: SplitConfig, purge_bars: int, warmup_bars: int) -> Splits:
    """Cut rows 0 .. n_bars - 1 at the fractions of `config`, each boundary rounded to a bar.

    A span after a boundary starts purge_bars + embargo_bars later: no label reaches from one span into the next.
    Train starts at warmup_bars. Test is shortened by up to test_folds - 1 bars so that its folds are equal.
    """
    gap = purge_bars + config.embargo_bars
    train_stop = round(n_bars * config.train_frac)
    valid_stop = round(n_bars * (config.train_frac + config.valid_frac))
    test_stop = round(n_bars * (config.train_frac + config.valid_frac + config.test_frac))
    fold_bars = max(0, test_stop - valid_stop - gap) // config.test_folds
    test = Span(valid_stop + gap, valid_stop + gap + fold_bars * config.test_folds)
    splits = Splits(
        train=_span(warmup_bars, train_stop),
        valid=_span(train_stop + gap, valid_stop),
        test=test,
        folds=tuple(
            Span(test.first + number * fold_bars, test.first + (number + 1) * fold_bars)
            for number in range(config.test_folds)
        ),
        sealed=SealedSpan(test_stop + gap, max(test_stop + gap, n_bars)),
    )
    _check_long_enough(splits, n_bars, config, purge_bars, warmup_bars)
    return splits


def _span(first: int, stop: int) -> Span:
    """Empty where the gap before it has eaten it up, for the length check to name."""
    return Span(first, max(first, stop))


def _check_long_enough(splits: Splits, n_bars: int, config: SplitConfig, purge_bars: int, warmup_bars: int) -> None:
    """Train and valid hold a day of labels of the longest horizon, each fold and the sealed span a week."""
    labelled = purge_bars + BARS_PER_DAY
    found = {
        "train": (len(splits.train), labelled),
        "valid": (len(splits.valid), labelled),
        "each test fold": (len(splits.folds[0]), FOLD_BARS_MIN),
        "the sealed span": (len(splits.sealed), FOLD_BARS_MIN),
    }
    if short := {name: sizes for name, sizes in found.items() if sizes[0] < sizes[1]}:
        each = ", ".join(f"{name} has {bars:,} bars, needs {least:,}" for name, (bars, least) in short.items())
        needed = _bars_needed(config, purge_bars, warmup_bars)
        raise DataError(
            f"{n_bars:,} bars are too few for these splits: {each}; {needed:,} bars ({needed // BARS_PER_DAY} days) are"
            " enough: fetch more with btcai data fetch, or shorten the horizons in params.yaml"
        )


def _bars_needed(config: SplitConfig, purge_bars: int, warmup_bars: int) -> int:
    """A history that is surely long enough; one bar is allowed for the rounding of each pair of boundaries."""
    gap = purge_bars + config.embargo_bars
    labelled = purge_bars + BARS_PER_DAY
    sealed_frac = 1 - config.train_frac - config.valid_frac - config.test_frac
    return max(
        math.ceil((labelled + warmup_bars + 1) / config.train_frac),
        math.ceil((labelled + gap + 1) / config.valid_frac),
        math.ceil((FOLD_BARS_MIN * config.test_folds + gap + 1) / config.test_frac),
        math.ceil((FOLD_BARS_MIN + gap + 1) / sealed_frac),
    )


def _minute(close_ts_ns: np.int64) -> str:
    return str(np.datetime64(int(close_ts_ns), "ns").astype("datetime64[m]")).replace("T", " ")
