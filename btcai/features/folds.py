"""The last rows of a stretch of bars, their windows folded on demand and each once."""

from functools import cached_property

from btcai.features.columns import choose_sigma, volatility_of
from btcai.features.leaves import make_leaves
from btcai.features.windows import window_extremes, window_line, window_mean
from btcai.schema import BAR_NS, Bars, FloatArray


class Folds:
    """What the rows first .. n - 1 of grid bars are computed from; the rows before `first` are their warm-up."""

    def __init__(self, bars: Bars, first: int) -> None:
        self.leaves = make_leaves(bars)
        self.close_ts_ns = bars.close_ts_ns[first:]
        self._first = first
        self._grid_row = int(bars.close_ts_ns[0]) // BAR_NS
        self._means: dict[tuple[str, int], FloatArray] = {}
        self._extremes: dict[int, tuple[FloatArray, FloatArray]] = {}

    @cached_property
    def sigma(self) -> FloatArray:
        """Standard deviation of one bar's log return as known at each row, > 0."""
        return choose_sigma(self.std(288), self.std(2016))

    def leaf(self, name: str) -> FloatArray:
        """A field of Leaves at the rows themselves."""
        values: FloatArray = getattr(self.leaves, name)
        return values[self._first :]

    def mean(self, name: str, window: int) -> FloatArray:
        """Window mean of a field of Leaves."""
        if (name, window) not in self._means:
            values = getattr(self.leaves, name)
            self._means[name, window] = window_mean(values, window, self._grid_row, self._first)
        return self._means[name, window]

    def std(self, window: int) -> FloatArray:
        """Standard deviation of one-bar log returns."""
        return volatility_of(self.mean("move", window), self.mean("move_square", window))

    def extremes(self, window: int) -> tuple[FloatArray, FloatArray]:
        """Highest high and lowest low."""
        if window not in self._extremes:
            high, low = self.leaves.high, self.leaves.low
            self._extremes[window] = window_extremes(high, low, window, self._grid_row, self._first)
        return self._extremes[window]

    def line(self, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean and standard deviation of the closes, and their correlation with time."""
        return window_line(self.leaves.close, window, self._grid_row, self._first)
