"""The stages of dvc.yaml as plain functions: files in, files out. Glue only: the maths is in the packages.

Imports happen inside the functions, so that the command line answers at once and a stage loads only what it needs.
"""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btcai import outputs, paths
from btcai.config import Config
from btcai.errors import ConfigError, DataError
from btcai.files import whole
from btcai.records import versions
from btcai.schema import BARS_PER_DAY, BUCKETS

if TYPE_CHECKING:
    from btcai.registry.submission import History
    from btcai.watch.verdict import Finding

logger = logging.getLogger(__name__)

Stage = Callable[[Config, Path], None]


def validate(config: Config, root: Path) -> None:
    """Bars of the market in use -> reports/validation; DataError after writing the report when a rule is broken."""
    from btcai.data import validation
    from btcai.data.data_docs import write_data_docs
    from btcai.data.page import render_html
    from btcai.data.store import read_market

    market = config.data.market
    report, context = validation.examine(read_market(root / paths.DATA, market))
    folder = paths.VALIDATION if report.success else paths.REJECTED
    with whole(root / folder) as out:
        (out / "report.json").write_text(report.to_json(), encoding="utf-8")
        (out / "metrics.json").write_text(report.counts_json(), encoding="utf-8")
        (out / "index.html").write_text(render_html(report), encoding="utf-8")
        write_data_docs(context, out / "data_docs")
    if not report.success:
        raise DataError(f"{market}: {validation.failure_message(report)}; see {folder}/index.html")
    shutil.rmtree(root / paths.REJECTED, ignore_errors=True)  # what it told of is mended
    for note in report.warnings:
        logger.warning("%s: %s", market, note)
    logger.info("%s: %d bars keep all %d rules", market, report.rows, len(report.expectations))


def features(config: Config, root: Path) -> None:
    """Raw bars -> artifacts/features: the grid with its features, the spans, the scaler of the training span."""
    from dataclasses import asdict, replace

    from btcai.data.funding import read_funding, with_funding
    from btcai.data.settlement import on_grid
    from btcai.data.store import content_sha256, read_market, to_grid
    from btcai.features.pipeline import build_market
    from btcai.features.scaling import fit_scaler
    from btcai.features.splits import make_splits
    from btcai.features.store import save_market

    frame = read_market(root / paths.DATA, config.data.market)
    data = build_market(to_grid(frame))
    funding = read_funding(root / paths.DATA / config.data.market)
    if funding is not None:
        data = replace(data, funding=on_grid(data.bars.close_ts_ns, *funding))
    splits = make_splits(len(data), config.splits, config.purge_bars, data.warmup_bars)
    version = with_funding(content_sha256(frame), funding)
    meta = {"market": config.data.market, "data_version": version, "splits": asdict(splits)}
    with whole(root / paths.FEATURES) as out:
        save_market(data, out, meta)
        (out / "scaler.json").write_text(fit_scaler(data.features, splits.train).to_json(), encoding="utf-8")
    for line in splits.printed(data.bars.close_ts_ns).splitlines():
        logger.info("%s", line)


def train(config: Config, root: Path, *, bucket: str) -> None:
    """artifacts/features and the bucket before it -> artifacts/train/BUCKET, with what it took of the machine."""
    from btcai import usage
    from btcai.machine import machine, processes_here, training_bytes
    from btcai.training import parallel, starts, stopping
    from btcai.training.progressive import train_bucket

    teachers = dict((after, before) for before, after in pairwise(BUCKETS))
    teacher = root / paths.TRAIN / teachers[bucket] if bucket in teachers else None
    data, splits, scaler = outputs.load_features(root)
    machine().require(training_bytes(len(data)), f"training on {len(data):,} bars", processes_here())
    checkpoints = root / paths.CHECKPOINTS / bucket
    name, start = config.warm_start.name, None
    if name != starts.NONE:
        start = starts.opened(name, root / paths.STARTS, outputs.seen(root)) / bucket
    with (
        parallel.joined(config.device),
        stopping.on_signals(),
        parallel.written_once(root / paths.TRAIN / bucket) as out,
        usage.sampled(out / usage.FILE),
    ):
        train_bucket(data, splits, scaler, bucket, config, teacher, out, checkpoints, start=start)
    shutil.rmtree(checkpoints, ignore_errors=True)


def consolidate(config: Config, root: Path) -> None:
    """artifacts/train -> artifacts/consolidate: the four models that are judged."""
    from btcai.machine import machine, processes_here, training_bytes
    from btcai.training import parallel, progressive, stopping

    data, splits, scaler = outputs.load_features(root)
    machine().require(training_bytes(len(data)), f"consolidating on {len(data):,} bars", processes_here())
    checkpoints = root / paths.CHECKPOINTS / "consolidate"
    with (
        parallel.joined(config.device),
        stopping.on_signals(),
        parallel.written_once(root / paths.CONSOLIDATE) as out,
    ):
        progressive.consolidate(data, splits, scaler, config, root / paths.TRAIN, out, checkpoints)
    shutil.rmtree(checkpoints, ignore_errors=True)


def evaluate(config: Config, root: Path) -> None:
    """artifacts/consolidate -> reports/evaluation: the four buckets and the baselines on the test span, judged."""
    from btcai.judging import gather_evidence
    from btcai.report.report import write_report

    evidence = gather_evidence(config, root)
    with whole(root / paths.EVALUATION) as out:
        written = write_report(out, evidence)
    logger.info("wrote %d files to %s", len(written), paths.EVALUATION)


def export(config: Config, root: Path) -> None:
    """artifacts/consolidate -> models/candidate: one ONNX bundle per bucket, parity proven."""
    from dataclasses import asdict

    from btcai.training.export import export_bundle

    data, _, scaler = outputs.load_features(root)
    made_from, shown = {"data": outputs.data_version(root), "code": versions.code_version()}, asdict(outputs.seen(root))
    with whole(root / paths.CANDIDATE) as out:
        for bucket in BUCKETS:
            trained, folder = root / paths.CONSOLIDATE / bucket, out / bucket
            export_bundle(trained, bucket, config, data, scaler, made_from, folder, seen=shown)


def reflect(config: Config, root: Path) -> None:
    """models/candidate -> artifacts/reflection: a memory for each bundle, what the parts of its reasoning are worth.

    Training and validation span alone are read.
    """
    from btcai import reflection
    from btcai.inference.bundle import load_bundle

    data, splits, _ = outputs.load_features(root)
    made_from, found = {"data": outputs.data_version(root), "code": versions.code_version()}, {}
    with whole(root / paths.REFLECTION) as out:
        for bucket in BUCKETS:
            bundle = load_bundle(root / paths.CANDIDATE / bucket)
            found[bucket] = reflection.reflect(bundle, data, splits, config, {**made_from, "model": bundle.version})
            reflection.save(found[bucket], out / bucket)
        reflection.table(found).to_csv(out / "weights.csv", index=False, lineterminator="\n")
        (out / "metrics.json").write_text(reflection.metrics_json(found), encoding="utf-8")


def register(config: Config, root: Path) -> None:
    """models/candidate and reports/evaluation -> MLflow, models/champion, reports/register.json."""
    from btcai.registry import cards, tracking

    found = outputs.read_metrics(root)
    judged = {bucket: _judged(found, bucket) for bucket in BUCKETS}
    tracking.register(root, config, judged, _history(root), cards.results(found))


def _history(root: Path) -> "History":
    """What artifacts/features say of the bars they were made from; of the bars themselves only the unsealed ones."""
    from btcai.data.frame import iso
    from btcai.features.store import read_meta
    from btcai.records.lineage import market_md5
    from btcai.registry.submission import History
    from btcai.schema import BAR_NS

    data, splits, _ = outputs.load_whole(root)
    meta = read_meta(root / paths.FEATURES)
    opens_ms = (data.bars.close_ts_ns[data.bars.present] - BAR_NS) // 1_000_000
    return History(
        market=meta["market"],
        rows=len(opens_ms),
        first=iso(opens_ms[0]),
        last=iso(opens_ms[-1]),
        data_version=meta["data_version"],
        dvc_md5=market_md5(root, meta["market"]),
        tested_ts_ns=outputs.tested_ts_ns(root),
        unsealed=data.until(splits.sealed.first).bars,
    )


def drift(config: Config, root: Path) -> None:
    """artifacts/features and models/candidate -> reports/drift: are the newest bars like those trained on?"""
    from btcai.watch.report import text

    finding = newest_bars(config, root)
    logger.log(logging.INFO if finding.verdict == "steady" else logging.WARNING, "%s", text(finding))


def newest_bars(config: Config, root: Path) -> "Finding":
    """What reports/drift, written here, tells. Without models/candidate only the bars themselves are judged."""
    from btcai.inference.bundle import load_bundle
    from btcai.watch.drift import measure_drift
    from btcai.watch.fit import measure_fit
    from btcai.watch.report import write_finding
    from btcai.watch.verdict import judge

    data, splits, _ = outputs.load_whole(root)
    n_bars = config.drift.window_days * BARS_PER_DAY
    measured = measure_drift(data.features, data.feature_names, data.mark, splits.train, n_bars)
    candidate = root / paths.CANDIDATE
    policies = [load_bundle(candidate / bucket) for bucket in BUCKETS] if candidate.is_dir() else []
    fit = measure_fit(policies, data, splits.train, splits.test, n_bars)
    finding = judge(measured, fit, config.drift, outputs.days(measured.window, data.bars.close_ts_ns))
    with whole(root / paths.DRIFT) as out:
        write_finding(out, finding)
    return finding


def _judged(found: dict[str, Any], bucket: str) -> Any:
    """A bucket's figures under the severity that is judged; undefined ones (null) come back as nan."""
    from btcai.registry.submission import Judged

    figures = found["strategies"][bucket][found["judged_severity"]]
    numbers = {name: float("nan") if figures[name] is None else figures[name] for name in figures}
    metrics = {name: float(number) for name, number in numbers.items() if isinstance(number, int | float)}
    verdict = found["verdicts"][bucket]
    return Judged(
        score=metrics["walk_forward_score"], edge=verdict["edge"], metrics=metrics, verdict=verdict.get("text", "")
    )


def run_stage(name: str, config: Config, root: Path) -> None:
    """Run one stage by its name in dvc.yaml."""
    if name not in STAGES:
        raise ConfigError(f"a stage must be one of {', '.join(STAGES)}, was {name}; see dvc.yaml")
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun says
    if processes > 1 and name not in TOGETHER:
        raise ConfigError(
            f"only train@BUCKET and consolidate run under torchrun; {name} was started in {processes} processes, which "
            f"would write the same files; run: btcai stage {name}"
        )
    STAGES[name](config, root)


STAGES: dict[str, Stage] = {
    "validate": validate,
    "features": features,
    **{f"train@{bucket}": partial(train, bucket=bucket) for bucket in BUCKETS},
    "consolidate": consolidate,
    "evaluate": evaluate,
    "export": export,
    "reflect": reflect,
    "register": register,
    "drift": drift,
}
"""By their names in dvc.yaml, in its order."""

TOGETHER = (*(f"train@{bucket}" for bucket in BUCKETS), "consolidate")
"""Stages whose work several processes share where torchrun starts them (training/parallel.py)."""
