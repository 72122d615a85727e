"""Quantiles that follow the outcomes of a watched market: calibration.follow, a decision at a time as bars come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from btcai.calibration import adjust, learn, new_adaptive, overlap_and_delay
from btcai.inference.bundle import GRAPHS, PolicyBundle
from btcai.inference.decision import Seen
from btcai.schema import BAR_NS, QUANTILE_LEVELS, BoolArray, FloatArray, IntArray

Marks = Callable[[IntArray], tuple[FloatArray, BoolArray]]
"""Of bars by when they closed (n,): their marks, and whether each is still kept and was not missing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Issued:
    """What was said at a decision time: quantiles (H, Q) in units (H,) of sigma * sqrt(horizon), beside its bar."""

    quantiles: FloatArray
    unit: FloatArray
    mark: float
    present: bool


class AdaptiveIntervals:
    """The adaptive state of one encoder on one market; its caller lets one thread in at a time.

    It begins with offsets of 0, which is the static form: with a market, with a market that is started again, and with
    another encoder, for quantiles of another network are wrong in another way. Nothing of it is kept over a restart of
    the server. It learns of what was issued alone: at a decision time that nobody asked about nothing was, as at one
    whose outcome ends on a missing bar or on one that is no longer kept.
    """

    def __init__(self, bundle: PolicyBundle) -> None:
        overlap, self._delay = overlap_and_delay(bundle.horizons_bars, bundle.patch_bars)
        self._state = new_adaptive(np.asarray(QUANTILE_LEVELS), overlap)
        self._encoder = encoder_of(bundle)
        self._horizons_bars = np.asarray(bundle.horizons_bars)
        self._step_ns = bundle.patch_bars * BAR_NS
        self._issued: dict[int, _Issued] = {}
        """By the number of the decision time, close_ts_ns / step, oldest first; those whose outcomes are waited for."""
        self._learned: int | None = None
        """Number of the newest decision time whose ended outcomes were learned of."""

    def is_of(self, bundle: PolicyBundle) -> bool:
        """Whether a bundle's quantiles come from the encoder that is followed."""
        return self._encoder == encoder_of(bundle)

    def adapted(self, seen: Seen, marks: Marks) -> Seen:
        """What was seen with the quantiles that are to be issued for it. Asked again, it answers the same."""
        self.learn_until(seen.close_ts_ns, marks)
        static, unit = seen.encoded.quantiles[-1], seen.sigma * np.sqrt(self._horizons_bars)
        predicted = static / unit[:, None]
        issued = adjust(self._state, predicted)
        self._issued[seen.close_ts_ns // self._step_ns] = _Issued(
            quantiles=issued, unit=unit, mark=seen.mark, present=seen.data.bars.present.item(-1)
        )
        said = (static + (issued - predicted) * unit[:, None]).tolist()  # to the bit the static one until it learns
        forecasts = [replace(one, quantiles=tuple(row)) for one, row in zip(seen.forecasts, said, strict=True)]
        return replace(seen, forecasts=tuple(forecasts), intervals="adaptive")

    def learn_until(self, close_ts_ns: int, marks: Marks) -> None:
        """Of all that ended after the last decision time learned at and by then, in the order of decision times."""
        number = close_ts_ns // self._step_ns
        for now in range(number if self._learned is None else self._learned + 1, number + 1):
            ended = [self._issued.get(now - delay) for delay in self._delay.tolist()]
            if any(ended):
                self._state = learn(self._state, *self._outcomes(now, ended, marks))
        self._learned = number
        oldest = number - int(self._delay.max())  # the last horizon of this one has ended
        while self._issued and (first := next(iter(self._issued))) <= oldest:
            del self._issued[first]

    def _outcomes(
        self, now: int, ended: Sequence[_Issued | None], marks: Marks
    ) -> tuple[FloatArray, FloatArray, BoolArray]:
        """What was issued (H, Q), what came (H,) and whether it is known (H,), of each horizon that ended."""
        mark, known = marks((now - self._delay) * self._step_ns + self._horizons_bars * BAR_NS)
        issued, outcome = np.zeros(self._state.offset.shape), np.zeros(len(ended))
        for h, one in enumerate(ended):
            known[h] &= one is not None and one.present
            if known[h] and one is not None:
                issued[h] = one.quantiles[h]
                outcome[h] = np.log(mark[h] / one.mark) / one.unit[h]
        return issued, outcome, known


def encoder_of(bundle: PolicyBundle) -> str:
    """Hash of the graph that a bundle's quantiles come from."""
    return bundle.manifest.sha256[GRAPHS[0]]
