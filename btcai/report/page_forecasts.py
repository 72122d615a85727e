"""The page's second part: what was forecast, how sure it was, and the reasons beside it."""

from collections.abc import Mapping, Sequence
from math import isfinite

from btcai.calibration import MIN_INDEPENDENT
from btcai.evaluation.direction_skill import Called
from btcai.evaluation.forecast_skill import COVERAGE_LIMITS, QUARTER_LEAST, ForecastSkill, Form
from btcai.evaluation.reliability import Held, Reliability
from btcai.evaluation.statistics import Interval
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.forecast_figures import refused_entries, uncertainty_of
from btcai.report.formats import UNDEFINED, between, duration, percent, ratio
from btcai.report.markup import Section, cell, picture, row, section, table

_READ_CALIBRATION = f"""<p>What each bucket predicted at its decisions in the test span, beside what followed. Where
the line follows the diagonal, one outcome in twenty falls below the 5 % quantile, half below the median, and so on.
Outcomes of a long horizon overlap, so few of them are apart: the grey band is where forecasts that are right would
still fall. With fewer than {MIN_INDEPENDENT} apart nothing can be said either way. Three forms are drawn: as the
network learned to predict; calibrated, with the offsets of the validation span, which are in the bundle; and adaptive,
with offsets that go on from there to follow the outcomes as each becomes known, a horizon late. The calibrated form is
what <code>btcai decide</code> and the registered model say, the adaptive one what a market says that
<code>btcai serve</code> watches and is asked about at every decision time.</p>"""

_READ_SKILL = f"""<p>Asked of horizons up to a day: the 90 % interval holds {100 * COVERAGE_LIMITS[0]:.1f} to
{100 * COVERAGE_LIMITS[1]:.1f} % of all outcomes and at least {100 * QUARTER_LEAST:.0f} % in every calendar quarter with
{MIN_INDEPENDENT} outcomes apart. On the validation span the weights were chosen and the static calibration was fitted:
what it shows there is in-sample. The adaptive form is not: there it starts from the quantiles as learned, and on the
test span from the calibrated ones, as a watched market does, and follows the outcomes from the span's first decision
on. Which form is served where is said above. CRPS is the mean distance of the whole predicted
distribution from the outcome; its rival calls no direction: a Student-t as wide as an exponentially weighted volatility
says, with the memory, scale and tails that fitted the training span best. A break-even cost is the fee a side at which
trades in the called direction, one at every decision and held for the horizon, would earn nothing; below the fee that
is paid no direction is worth trading. The surest tenth are those whose odds lie beyond nine in ten of the ones before
them. Intervals are of 95 %, from days drawn in blocks longer than the horizon.</p>"""

_READ_REASONING = """<p>The colour is what a component said, the deeper the more it spoke for rising (orange) or falling
(violet) prices and the surer it was. Its worth is measured on decisions that are over; where the bar crosses 0 it may
as well be luck.</p>"""


def forecast_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """Fans, calibration, worth, doubt and reasoning."""
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
        section("What the forecasts are worth", *worth(evidence.skills, pictures)),
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


def worth(skills: Sequence[ForecastSkill], pictures: Mapping[str, Picture]) -> list[str]:
    """The intervals and what they say beside volatility alone, then the directions; a table a span of each."""
    if not skills:
        return []
    parts = [_READ_SKILL, picture(pictures.get("figures/coverage.png")), picture(pictures.get("figures/crps.png"))]
    for span in dict.fromkeys(one.span for one in skills):
        found = [one for one in skills if one.span == span]
        parts += [f"<h3>On the {span} span</h3>", _intervals(found), _directions(found)]
    return parts


def _intervals(found: Sequence[ForecastSkill]) -> str:
    heads = ["bucket", "horizon", "outcomes (of them apart)"]
    for form in ("as learned", "calibrated", "adaptive"):
        heads += [f"{form}: held (worst quarter)", "CRPS lower by"]
    return table(heads, [_skill_row(one, found, _interval_cells(one)) for one in found])


def _skill_row(one: ForecastSkill, among: Sequence[ForecastSkill], cells: list[str]) -> str:
    """The bucket's name stands in its first row; grey where too few outcomes are apart to judge by."""
    first = next(other for other in among if other.bucket == one.bucket) is one
    return row(one.bucket if first else "", cells, "" if one.is_judged else "soft")


def _interval_cells(one: ForecastSkill) -> list[str]:
    forms = (one.raw, one.static, one.adaptive)
    return [
        cell(duration(one.horizon_bars)),
        cell(f"{one.outcomes:,} ({one.apart:,}{'' if one.is_judged else ': too few'})"),
        *(text for form in forms for text in _form_cells(one, form)),
    ]


def _form_cells(one: ForecastSkill, form: Form) -> list[str]:
    """Red where a limit is asked and not kept, or volatility alone is surely better; green where surely worse."""
    low, high = COVERAGE_LIMITS
    misses = one.is_limited and not low <= form.coverage_frac <= high
    falls = one.is_limited and form.worst_quarter_frac < QUARTER_LEAST
    ends = form.skill_interval
    return [
        cell(f"{percent(form.coverage_frac)} ({percent(form.worst_quarter_frac)})", -float(misses or falls)),
        cell(_with_ends(100 * form.skill, Interval(100 * ends.low, 100 * ends.high), 1, " %"), _surely(ends)),
    ]


def _directions(found: Sequence[ForecastSkill]) -> str:
    heads = (
        "bucket",
        "horizon",
        "calls a rise",
        "right",
        "by chance",
        "difference, 95 %",
        "p",
        "p, of all together",
        "break-even fee a side, bp",
        "of it timing",
        "of the surest tenth, bp",
    )
    return table(heads, [_skill_row(one, found, _called_cells(one.horizon_bars, one.called)) for one in found])


def _called_cells(horizon_bars: int, called: Called) -> list[str]:
    excess, judged = called.excess_interval, isfinite(called.p_holm)
    return [
        cell(duration(horizon_bars)),
        cell(percent(called.rises_frac, 0)),
        cell(percent(called.hits_frac)),
        cell(percent(called.chance_frac)),
        cell(between(100 * excess.low, 100 * excess.high, 1)),
        cell(_chance(called.p_value)),
        cell(_chance(called.p_holm), float(judged and called.p_holm < 0.05)),
        cell(_with_ends(called.break_even_bps, called.break_even_interval, 1), _surely(called.break_even_interval)),
        cell(ratio(called.timing_bps, 1)),
        cell(_with_ends(called.sure_break_even_bps, called.sure_interval, 1), _surely(called.sure_interval)),
    ]


def _with_ends(value: float, ends: Interval, digits: int, unit: str = "") -> str:
    """1.2 (0.4 .. 2.1) %; without the interval where there is none."""
    around = f" ({between(ends.low, ends.high, digits)})" if isfinite(ends.low) else ""
    return f"{ratio(value, digits)}{around}{unit}" if isfinite(value) else UNDEFINED


def _chance(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else ratio(p_value, 3)


def _surely(ends: Interval) -> float:
    """The sign of both ends, 0 where they differ or are not known."""
    return float(ends.low > 0.0) - float(ends.high < 0.0)
