"""Judging the champions on the sealed span: on record first, then once; all that was judged on it before counts."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from btcai import judging, outputs, paths
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.evaluation.assessment import assess
from btcai.evaluation.judge import Judgement, Trials
from btcai.features.store import read_meta
from btcai.files import whole
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.records import champions, openings, versions
from btcai.records.openings import Opening
from btcai.report.record import strict_json
from btcai.report.report import table
from btcai.schema import BUCKETS, Span


@dataclass(frozen=True, kw_only=True)
class Unsealed:
    """What was found, what is on record of any part of this time, and where the report is.

    looks: at it, this one too; earlier_trials: judged on it before, other champions at earlier looks among them.
    """

    judgement: Judgement
    looks: int
    earlier_trials: int
    folder: Path


def unseal(root: Path, config: Config, because: str, now_unix_s: int) -> Unsealed:
    """Open the sealed span of artifacts/features for models/champion; writes the ledger first and reports/sealed last.

    Its folds are as many as the test span's. Nothing that is found here chooses, promotes or trains anything.
    ArtifactError where a champion was judged on other terms: other spans may have shown it what is sealed now.
    """
    data, splits, _ = outputs.load_whole(root)
    version = outputs.data_version(root)
    bundles = {bucket: _champion(root, bucket, config, version) for bucket in BUCKETS}
    times = data.bars.close_ts_ns
    opening = Opening(
        market=read_meta(root / paths.FEATURES)["market"],
        data_version=version,
        first_ts_ns=int(times[splits.sealed.first]),
        last_ts_ns=int(times[splits.sealed.stop - 1]),
        opened_unix_s=now_unix_s,
        because=because,
        models={bucket: bundle.version for bucket, bundle in bundles.items()},
    )
    earlier = judging.earlier_trials(root, config, opening)
    trials = Trials(sharpes=np.array(earlier))
    span, looks = openings.opened(splits.sealed, opening, root / paths.OPENINGS)
    found = assess(bundles, data, replace(splits, test=span, folds=_parts(span, len(splits.folds))), config, trials)
    folder = root / paths.SEALED / str(len(openings.looks(root / paths.OPENINGS)))
    with whole(folder) as out:
        table(found.judgement.rows).to_csv(out / "table.csv", index=False, lineterminator="\n")
        verdicts = {verdict.bucket: verdict.text for verdict in found.judgement.verdicts}
        record = {"opening": asdict(opening), "looks": looks, "earlier_trials": len(earlier), "verdicts": verdicts}
        (out / "metrics.json").write_text(strict_json(record), encoding="utf-8")
    return Unsealed(judgement=found.judgement, looks=looks, earlier_trials=len(earlier), folder=folder)


def _champion(root: Path, bucket: str, config: Config, data_version: str) -> PolicyBundle:
    folder = root / paths.CHAMPION / bucket
    bundle, standing = load_bundle(folder), champions.read_standing(folder)
    if standing is None or standing.judged_on != versions.judged_on(config, data_version):
        raise ArtifactError(
            f"the champion of {bucket} must have been judged on these bars, spans, costs and limits to be shown what "
            "is sealed; judge it first: btcai run"
        )
    return bundle


def _parts(span: Span, n: int) -> tuple[Span, ...]:
    """Equal parts, the rest at the front left out."""
    size = len(span) // n
    first = span.stop - n * size
    return tuple(Span(first + k * size, first + (k + 1) * size) for k in range(n))
