"""Is a frame of raw bars fit to learn from? Great Expectations' verdict, rule by rule: a report, never a repair.

A broken rule is a failure. Gaps and bars without volume are real events of real markets: warnings, with a ledger.
"""

import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from btcai.data.frame import BAR_MS, VALUE_COLUMNS, Gap, content_sha256, find_gaps, iso
from btcai.errors import DataError
from btcai.schema import RAW_COLUMNS, IntArray

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

PRICES = VALUE_COLUMNS[:4]
MAX_LOG_MOVE = 0.5  # of one bar; Bitcoin's worst 5 minutes were below 0.2
LONG_GAP_MS = 86_400_000  # after a day without bars any price is plausible
SHOWN_ROWS = 10
_LARGEST = sys.float_info.max  # what is above it is infinite


@dataclass(frozen=True, kw_only=True)
class Offence:
    """One row that breaks a rule: its number from 0, its open stamp, the values that the rule reads."""

    row: int
    time: str | None
    values: dict[str, float | str | None]


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One expectation's outcome; offences are the first rows that break it."""

    name: str
    column: str
    success: bool
    unexpected_count: int
    offences: tuple[Offence, ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The verdict on one frame; the same bars give the same report to the byte."""

    success: bool
    rows: int
    first: str | None
    last: str | None
    content_sha256: str | None
    expectations: tuple[RuleResult, ...]
    gaps: tuple[Gap, ...] = ()
    missing_bars: int = 0
    zero_volume_bars: int = 0
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Strict JSON (no NaN), keys in order, no time of writing."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    def counts_json(self) -> str:
        """The figures alone, for `dvc metrics`."""
        counts = {
            "bars": self.rows,
            "missing_bars": self.missing_bars,
            "gaps": len(self.gaps),
            "zero_volume_bars": self.zero_volume_bars,
            "rules": len(self.expectations),
            "rules_broken": sum(not result.success for result in self.expectations),
        }
        return json.dumps(counts, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One expectation, the column it is filed under, the columns whose values explain an offence."""

    name: str
    column: str
    reads: tuple[str, ...]
    expectation: "Expectation"


def validate(frame: pd.DataFrame) -> ValidationReport:
    """Judge a raw frame (T rows); where columns or types are wrong only that is reported, since the rest needs them."""
    return examine(frame)[0]


def examine(frame: pd.DataFrame) -> tuple[ValidationReport, Any]:
    """The verdict, and Great Expectations' context with all that it found, for data_docs.write_data_docs."""
    context = _new_context()
    return _judge(context, frame), context


def _judge(context: Any, frame: pd.DataFrame) -> ValidationReport:
    gxe = _load_expectations()
    shape = _evaluate(context, "shape", frame, list(_shape_rules(gxe)))
    if not all(result.success for result in shape):
        return ValidationReport(
            success=False, rows=len(frame), first=None, last=None, content_sha256=None, expectations=tuple(shape)
        )
    open_ms = _stamps(frame)
    results = (*shape, *_evaluate(context, "values", _with_derived(frame, open_ms), list(_value_rules(gxe))))
    stamps = open_ms[frame[RAW_COLUMNS[0]].notna().to_numpy()]
    gaps = find_gaps(stamps)
    quiet = np.flatnonzero(frame["volume"].to_numpy() == 0)
    missing_bars = sum(gap.bars for gap in gaps)
    notes = []
    if gaps:
        notes.append(f"{len(gaps)} gap(s), {missing_bars} missing bars; the first from {gaps[0].first_missing}")
    if len(quiet):
        notes.append(f"{len(quiet)} bar(s) without volume; the first is row {quiet[0]} at {iso(open_ms[quiet[0]])}")
    return ValidationReport(
        success=all(result.success for result in results),
        rows=len(frame),
        first=iso(stamps.min()) if len(stamps) else None,
        last=iso(stamps.max()) if len(stamps) else None,
        content_sha256=content_sha256(frame) if len(stamps) == len(frame) else None,
        expectations=results,
        gaps=gaps,
        missing_bars=missing_bars,
        zero_volume_bars=len(quiet),
        warnings=tuple(notes),
    )


def failure_message(report: ValidationReport) -> str:
    """One line for the terminal: the rules broken, where, and what to do; empty when the report is a success."""
    broken = [result for result in report.expectations if not result.success]
    if not broken:
        return ""
    said = "; ".join(f"{result.name}: {_where(result)}" for result in broken[:3])
    more = f"; and {len(broken) - 3} more rule(s)" if len(broken) > 3 else ""
    return f"bars break {len(broken)} rule(s): {said}{more}; mend them in their source, then: btcai data import PATH"


def _where(result: RuleResult) -> str:
    if not result.offences:
        return result.detail or "not so"
    first = result.offences[0]
    values = ", ".join(f"{name} {value}" for name, value in first.values.items() if name != RAW_COLUMNS[0])
    rows = f"{result.unexpected_count} rows, the first is row" if result.unexpected_count > 1 else "row"
    return f"{rows} {first.row} at {first.time}" + (f" ({values})" if values else "")


def _load_expectations() -> Any:
    """Great Expectations' namespace of rules; a module of it imports two that Python deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="module 'sre_(constants|parse)' is deprecated", category=DeprecationWarning
        )
        from great_expectations import expectations
    return expectations


def _shape_rules(gxe: Any) -> Iterator[_Rule]:
    columns = list(RAW_COLUMNS)
    yield _Rule(
        name=f"columns are {', '.join(columns)}",
        column="(all)",
        reads=(),
        expectation=gxe.ExpectTableColumnsToMatchOrderedList(column_list=columns),
    )
    yield _Rule(
        name="there is at least one bar",
        column="(all)",
        reads=(),
        expectation=gxe.ExpectTableRowCountToBeBetween(min_value=1),
    )
    for column, kind in (("open_time", "Timestamp"), *((name, "float64") for name in VALUE_COLUMNS)):
        yield _Rule(
            name=f"{column} is of type {'UTC timestamp' if kind == 'Timestamp' else kind}",
            column=column,
            reads=(column,),
            expectation=gxe.ExpectColumnValuesToBeOfType(column=column, type_=kind),
        )


def _value_rules(gxe: Any) -> Iterator[_Rule]:
    for name in RAW_COLUMNS:
        rule = gxe.ExpectColumnValuesToNotBeNull(column=name)
        yield _Rule(name=f"{name} is present", column=name, reads=(name,), expectation=rule)
    for name in PRICES:
        between = gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, strict_min=True, max_value=_LARGEST)
        yield _Rule(name=f"{name} > 0 and finite", column=name, reads=(name,), expectation=between)
    pair = gxe.ExpectColumnPairValuesAToBeGreaterThanB
    for rule_name, column, reads, expectation in (
        ("open_time is on the 5-minute grid", "open_time", ("open_time",),
         gxe.ExpectColumnValuesToBeBetween(column="_off_grid_ms", min_value=0, max_value=0)),
        ("open_time is unique and strictly increasing", "open_time", ("open_time",),
         gxe.ExpectColumnValuesToBeBetween(column="_after_previous_ms", min_value=0, strict_min=True)),
        ("volume >= 0 and finite", "volume", ("volume",),
         gxe.ExpectColumnValuesToBeBetween(column="volume", min_value=0, max_value=_LARGEST)),
        ("high >= max(open, close)", "high", ("high", "open", "close"),
         pair(column_A="high", column_B="_body_high", or_equal=True, ignore_row_if="either_value_is_missing")),
        ("low <= min(open, close)", "low", ("low", "open", "close"),
         pair(column_A="_body_low", column_B="low", or_equal=True, ignore_row_if="either_value_is_missing")),
        (f"range of a bar, log(high / low), < {MAX_LOG_MOVE}", "high", ("high", "low"),
         gxe.ExpectColumnValuesToBeBetween(column="_log_range", max_value=MAX_LOG_MOVE, strict_max=True)),
        (f"jump, |log(close / median of the 3 closes before)|, < {MAX_LOG_MOVE}", "close", ("close",),
         gxe.ExpectColumnValuesToBeBetween(column="_log_jump", max_value=MAX_LOG_MOVE, strict_max=True)),
    ):  # fmt: skip
        yield _Rule(name=rule_name, column=column, reads=reads, expectation=expectation)


def _stamps(frame: pd.DataFrame) -> IntArray:
    """open_time as UTC ms (T,); a blank is 0, which only the rule of presence reads."""
    us = frame[RAW_COLUMNS[0]].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    stamps: IntArray = np.where(np.isnat(us), 0, us.astype(np.int64)) // 1000
    return stamps


def _with_derived(frame: pd.DataFrame, open_ms: IntArray) -> pd.DataFrame:
    """The bars plus what the rules compare; a derived value is nan, which no rule reads, where one it needs is nan."""
    bars = frame.reset_index(drop=True)
    present = bars["open_time"].notna()
    stamps = pd.Series(open_ms, dtype=np.float64).where(present)
    step = stamps - stamps.ffill().shift(1)  # ms below 2**53: exact
    positive = bars[list(PRICES)].where(bars[list(PRICES)] > 0)
    log = positive.apply(np.log)
    # The median of three shrugs off one bad close, so a single bad bar is named alone and not with the bar after it.
    known = log["close"].groupby((step > LONG_GAP_MS).cumsum())
    usual = known.transform(lambda closes: closes.rolling(3, min_periods=1).median().shift(1))
    return bars.assign(
        _off_grid_ms=stamps % BAR_MS,
        _after_previous_ms=step,
        _body_high=bars[["open", "close"]].max(axis=1),
        _body_low=bars[["open", "close"]].min(axis=1),
        _log_range=log["high"] - log["low"],
        _log_jump=(log["close"] - usual).abs(),
    )


def _new_context() -> Any:
    """An ephemeral context that leaves no file and sends nothing."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.data_sources.add_pandas("bars")
    return context


def _evaluate(context: Any, name: str, table: pd.DataFrame, rules: list[_Rule]) -> list[RuleResult]:
    """Run the rules over a table (T rows) as a suite of the context's."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    table = table.reset_index(drop=True)
    asset = context.data_sources.get("bars").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    for number, rule in enumerate(rules):
        rule.expectation.meta = {"rule": number}  # results come back in an order of their own
        rule.expectation.description = rule.name
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[rule.expectation for rule in rules]))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format="SUMMARY")
    run_id = RunIdentifier(run_name=name, run_time=datetime.fromtimestamp(0, UTC))  # the same bars, the same pages
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table}, run_id=run_id)
    (run,) = outcome.run_results.values()
    configs = [(result.expectation_config, result) for result in run.results]
    results = {config.meta["rule"]: result for config, result in configs if config is not None and config.meta}
    return [_rule_result(rule, results[number], table) for number, rule in enumerate(rules)]


def _rule_result(rule: _Rule, result: Any, table: pd.DataFrame) -> RuleResult:
    found = result.result or {}
    crash = _crash(result.exception_info)
    if crash and rule.column in table.columns:
        raise DataError(f"the rule {rule.name!r} could not be evaluated: {crash}; please report it with these bars")
    rows = [int(row) for row in (found.get("partial_unexpected_index_list") or [])[:SHOWN_ROWS]]
    return RuleResult(
        name=rule.name,
        column=rule.column,
        success=bool(result.success),
        unexpected_count=int(found.get("unexpected_count") or 0),
        offences=tuple(_offence(rule, row, table) for row in rows),
        detail="" if result.success or rows else _detail(rule, found, table),
    )


def _detail(rule: _Rule, found: Mapping[str, Any], table: pd.DataFrame) -> str:
    if rule.column in table.columns:
        return f"was {table[rule.column].dtype}"
    if rule.reads:
        return "the column is missing"
    observed = found.get("observed_value")
    return "was " + (", ".join(map(str, observed)) if isinstance(observed, list) else str(observed))


def _crash(info: Any) -> str:
    """The message of an exception that Great Expectations swallowed: a rule that crashed also reads success False."""
    if not isinstance(info, Mapping):
        return ""
    if "raised_exception" in info:
        return str(info.get("exception_message") or "no message") if info["raised_exception"] else ""
    return next(filter(None, map(_crash, info.values())), "")


def _offence(rule: _Rule, row: int, table: pd.DataFrame) -> Offence:
    time = table["open_time"].iloc[row] if isinstance(table["open_time"].dtype, pd.DatetimeTZDtype) else None
    stamp = None if time is None or pd.isna(time) else time.tz_convert("UTC").isoformat().replace("+00:00", "Z")
    return Offence(row=row, time=stamp, values={name: _plain(table[name].iloc[row]) for name in rule.reads})


def _plain(value: Any) -> float | str | None:
    """A cell as strict JSON holds it."""
    if pd.isna(value):
        return None
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)
