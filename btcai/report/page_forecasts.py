"""The page's second part: what was forecast, how sure it was, and the reasons beside it."""

from collections.abc import Mapping
from math import isfinite

from btcai.calibration import MIN_INDEPENDENT
from btcai.evaluation.reliability import Held, Reliability
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.forecast_figures import refused_entries, uncertainty_of
from btcai.report.formats import UNDEFINED, between, duration, percent, ratio
from btcai.report.markup import Section, cell, picture, row, section, table

_READ_CALIBRATION = f"""<p>What each bucket predicted at its decisions in the test span, beside what followed. Where
the line follows the diagonal, one outcome in twenty falls below the 5 % quantile, half below the median, and so on.
Outcomes of a long horizon overlap, so few of them are apart: the grey band is where forecasts that are right would
still fall. With fewer than {MIN_INDEPENDENT} apart nothing can be said either way. Three forms are drawn: as the
network learned to predict, with the offsets of the validation span, which are in the bundle, and with offsets that go
on to follow the outcomes as each becomes known, a horizon late.</p>"""

_READ_REASONING = """<p>The colour is what a component said, the deeper the more it spoke for rising (orange) or falling
(violet) prices and the surer it was. Its worth is measured on decisions that are over; where the bar crosses 0 it may
as well be luck.</p>"""


def forecast_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """Fans, calibration, doubt and reasoning."""
    reasoning = [picture(pictures.get(f"figures/reasoning_{bucket}.png")) for bucket in evidence.reasoning]
    return [
        section(
            "Forecasts",
            picture(pictures.get("figures/fans.png")),
            "<h3>Calibration</h3>",
            _READ_CALIBRATION,
            picture(pictures.get("calibration.png")),
            _forecasts(evidence.forecasts),
        ),
        section("Doubt and decisions", *_doubt(evidence, pictures)),
        section("Reasoning", _READ_REASONING if any(reasoning) else "", *reasoning),
    ]


def _doubt(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[str]:
    """How many entries sizing refused because the forecast, or the network about the market, was unsure."""
    market, sizing = evidence.unsealed(), evidence.sizing
    if market is None or sizing is None:
        return []
    body = []
    for bucket, result in evidence.judged().items():
        if result.encoded is not None and bucket in evidence.buckets:
            uncertainty = uncertainty_of(result, market, evidence.buckets[bucket].horizons_bars[0])
            refused, wanted = refused_entries(result, uncertainty, sizing)
            share = percent(refused / wanted) if wanted else UNDEFINED
            body.append(row(bucket, map(cell, (f"{len(result.decisions):,}", f"{wanted:,}", f"{refused:,}", share))))
    heads = ("bucket", "decisions", "entries wanted", "refused", "share of the wanted")
    return [picture(pictures.get("figures/doubt.png")), table(heads, body)] if body else []


def _forecasts(forecasts: Mapping[str, tuple[Reliability, ...]]) -> str:
    """One row per bucket and horizon; grey where the outcomes are too few to judge by."""
    heads = (
        "bucket",
        "horizon",
        "outcomes (of them apart)",
        "90 % interval holds: as learned",
        "calibrated",
        "adaptive",
        "right ones would hold",
        "pinball loss over volatility's: calibrated",
        "adaptive",
        "information coefficient",
        "temperature of a rise",
    )
    body = []
    for bucket, horizons in forecasts.items():
        for number, found in enumerate(horizons):
            kind = "" if found.is_judged else "soft"
            body.append(row("" if number else bucket, _forecast_cells(found), kind))
    return table(heads, body)


def _forecast_cells(found: Reliability) -> list[str]:
    """Coloured only where judged: down for what right forecasts would not show, by sign where more is better."""
    judged = float(found.is_judged)
    known, noise = found.information_coefficient, found.information_noise
    return [
        cell(duration(found.horizon_bars)),
        cell(f"{found.outcomes:,} ({found.apart:,}{'' if found.is_judged else ': too few'})"),
        *(_coverage_cell(found, held) for held in (found.raw, found.static, found.adaptive)),
        cell(f"{between(100 * found.coverage_low, 100 * found.coverage_high, 1)} %"),
        *(
            cell(ratio(held.pinball_ratio, 3), judged * (1.0 - held.pinball_ratio))
            for held in (found.static, found.adaptive)
        ),
        cell(f"{ratio(known, 3)} +- {ratio(noise, 3)}", judged * known * (abs(known) > noise)),
        _temperature_cell(found),
    ]


def _coverage_cell(found: Reliability, held: Held) -> str:
    missed = held.coverage_frac < found.coverage_low or held.coverage_frac > found.coverage_high
    return cell(percent(held.coverage_frac), -float(found.is_judged and missed))


def _temperature_cell(found: Reliability) -> str:
    """With its interval, 1.6 (1.0 .. 3.6); down where 1 lies outside."""
    if not isfinite(found.rise_temperature):
        return cell(UNDEFINED)
    low, high = found.rise_temperature_low, found.rise_temperature_high
    ends = f"{ratio(low, 1)} .. {ratio(high, 1) if isfinite(high) else 'inf'}"
    return cell(f"{ratio(found.rise_temperature, 1)} ({ends})", -float(low > 1.0 or high < 1.0))
