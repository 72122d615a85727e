"""The evaluation as JSON: the full record, the few figures that `dvc metrics` lines up, and the way back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

import pandas as pd

from btcai.evaluation.gate import Check
from btcai.evaluation.judge import Judgement, Verdict
from btcai.evaluation.power import Detectable
from btcai.evaluation.result import LABELS
from btcai.evaluation.rows import Row
from btcai.evaluation.statistics import Interval
from btcai.evaluation.twins import Rank, Ranks
from btcai.report.evidence import Evidence
from btcai.schema import BUCKETS

SUMMARY = (
    "net_return",
    "sharpe",
    "sharpe_low",
    "sharpe_high",
    "max_drawdown_frac",
    "trades",
    "cost_frac",
    "walk_forward_score",
)
"""The figures of a Row that compare strategies and runs at a glance."""


def metrics_record(evidence: Evidence, daily: pd.DataFrame) -> dict[str, Any]:
    """metrics.json: strategies -> severity -> figures, a verdict per bucket, its forecasts per horizon."""
    strategies: dict[str, dict[str, Any]] = {}
    for row in evidence.judgement.rows:
        figures = asdict(row)
        strategies.setdefault(figures.pop("strategy"), {})[figures.pop("severity")] = figures
    return {
        "market": evidence.market,
        "data_version": evidence.data_version,
        "judged_severity": evidence.judgement.severity,
        "first_day": f"{daily.index[0]:%Y-%m-%d}",
        "last_day": f"{daily.index[-1]:%Y-%m-%d}",
        "sealed_span": {"looks": evidence.sealed_looks, "span": evidence.sealed_text},
        "severities": {name: cost.model_dump() for name, cost in evidence.severities.items()},
        "strategies": strategies,
        "verdicts": {verdict.bucket: _verdict_record(verdict) for verdict in evidence.judgement.verdicts},
        "forecasts": {bucket: [asdict(one) for one in found] for bucket, found in evidence.forecasts.items()},
        "forecast_skill": [asdict(one) for one in evidence.skills],
    }


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    return {
        "edge": verdict.edge,
        "text": verdict.text,
        "sharpe_differences": {name: {"low": low, "high": high} for name, low, high in verdict.differences},
        "checks": [check._asdict() for check in verdict.checks],
        "smallest_edge": verdict.smallest_edge._asdict(),
        "n_trials": verdict.n_trials,
        "over_champion": verdict.over_champion and verdict.over_champion._asdict(),
        "random_twins": verdict.ranks and _ranks_record(verdict.ranks),
        "loss_probability": verdict.loss_probability,
    }


def _ranks_record(ranks: Ranks) -> dict[str, Any]:
    return {"twins": ranks.twins, "net_return": ranks.net_return._asdict(), "sharpe": ranks.sharpe._asdict()}


def summary_records(judgement: Judgement) -> dict[str, dict[str, Any]]:
    """Strategy -> its SUMMARY under the judged severity, with the edge of a bucket."""
    edges = {verdict.bucket: {"edge": verdict.edge} for verdict in judgement.verdicts}
    return {
        row.strategy: {name: getattr(row, name) for name in SUMMARY} | edges.get(row.strategy, {})
        for row in judgement.judged_rows()
    }


def strict_json(record: object) -> str:
    """JSON with sorted keys in which an undefined number is null."""
    return json.dumps(_finite(record), sort_keys=True, indent=2, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    return value


def judgement_of(found: Mapping[str, Any]) -> Judgement:
    """The judgement that a metrics.json holds, strategies in the table's order."""
    rows = [
        Row(strategy=strategy, severity=severity, **_revived(figures))
        for strategy in _in_order(found["strategies"])
        for severity, figures in found["strategies"][strategy].items()
    ]
    verdicts = [_verdict(bucket, found["verdicts"][bucket]) for bucket in _in_order(found["verdicts"])]
    return Judgement(severity=found["judged_severity"], rows=tuple(rows), verdicts=tuple(verdicts))


def _verdict(bucket: str, record: Mapping[str, Any]) -> Verdict:
    ends = record["sharpe_differences"]
    differences = tuple((name, _revived(ends[name]["low"]), _revived(ends[name]["high"])) for name in _in_order(ends))
    checks = (Check(**_revived(one)) for one in record["checks"])
    least, over, among = record["smallest_edge"], record["over_champion"], record["random_twins"]
    return Verdict(
        bucket=bucket,
        edge=record["edge"],
        text=record["text"],
        differences=differences,
        checks=tuple(checks),
        smallest_edge=Detectable(**_revived(least)),
        n_trials=record["n_trials"],
        over_champion=over and Interval(**_revived(over)),
        ranks=among and _ranks(among),
        loss_probability=_revived(record["loss_probability"]),
    )


def _ranks(record: Mapping[str, Any]) -> Ranks:
    net, sharpe = (Rank(**_revived(record[name])) for name in ("net_return", "sharpe"))
    return Ranks(net_return=net, sharpe=sharpe, twins=record["twins"])


def _in_order(strategies: Iterable[str]) -> list[str]:
    """Buckets first, shortest first, then the baselines from the plainest, others last: sorted keys have lost it."""
    order = {name: place for place, name in enumerate((*BUCKETS, "cash", *LABELS))}
    return sorted(strategies, key=lambda name: order.get(name, len(order)))


def _revived(value: Any) -> Any:
    """JSON has no nan and no tuples: null and lists turn back, inside of objects too."""
    if isinstance(value, Mapping):
        return {name: _revived(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_revived(item) for item in value)
    return float("nan") if value is None else value
