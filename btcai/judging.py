"""What reports/evaluation is made from: the judgement of the four buckets, and all that is shown beside it."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from btcai import outputs, paths
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.records import versions
from btcai.schema import BUCKETS

if TYPE_CHECKING:
    from btcai.evaluation.incumbents import Incumbent
    from btcai.evaluation.sizing_comparison import SizingRow
    from btcai.records.openings import Opening
    from btcai.report.evidence import Evidence

logger = logging.getLogger(__name__)


def gather_evidence(config: Config, root: Path) -> "Evidence":
    """What reports/evaluation shows.

    Beside the judgement: how each bucket learned (curves.csv, metrics.json of artifacts/train and
    artifacts/consolidate), which features it reads (importance.csv of the latter), how it reasons, what it does in
    simulated markets under stress, and the ablations there are.
    """
    import numpy as np

    from btcai.evaluation.assessment import assess
    from btcai.evaluation.forecast_skill import forecast_skills
    from btcai.evaluation.judge import Trials
    from btcai.evaluation.reliability import reliability
    from btcai.evaluation.review import review
    from btcai.evaluation.robustness import cost_variants
    from btcai.evaluation.sizing_comparison import compare_sizings
    from btcai.evaluation.stress import stress
    from btcai.evaluation.voices import voices
    from btcai.market.rules import make_rules
    from btcai.records.openings import looks_at
    from btcai.report import curves
    from btcai.report.evidence import Evidence
    from btcai.training.checkpoint import load_policy

    data, splits, _ = outputs.load_features(root)
    times = outputs.load_whole(root)[0].bars.close_ts_ns  # to say when the sealed span is
    folders = {bucket: (root / paths.TRAIN / bucket, root / paths.CONSOLIDATE / bucket) for bucket in BUCKETS}
    policies = {bucket: load_policy(folders[bucket][1], bucket, config) for bucket in BUCKETS}
    trials = Trials(sharpes=np.array(earlier_trials(root, config)))
    found = assess(policies, data, splits, config, trials, incumbents(root))
    walked = {bucket: by[config.market.severity] for bucket, by in found.results.items()}

    def sized(bucket: str) -> "tuple[SizingRow, ...]":
        settings = config.buckets[bucket]
        rules = make_rules(settings, config.market, config.risk)
        return compare_sizings(walked[bucket], policies[bucket], data, settings, rules, config.sizing, seed=config.seed)

    said = {bucket: voices(walk, data, splits, config, bucket) for bucket, walk in walked.items()}
    looked = {bucket: review(walk, data, config.buckets[bucket], said[bucket]) for bucket, walk in walked.items()}
    return Evidence(
        judgement=found.judgement,
        results=found.results,
        baselines=found.baselines,
        beside=found.beside,
        correlation=found.portfolio.correlation,
        diversification_ratio=found.portfolio.diversification_ratio,
        slices=found.slices,
        stress=stress(policies, config, seed=config.seed),
        forecasts={
            bucket: reliability(walk, data, config.buckets[bucket], splits.train, policies[bucket].calibration)
            for bucket, walk in walked.items()
        },
        skills=forecast_skills(
            policies,
            {bucket: policy.calibration for bucket, policy in policies.items()},
            walked,
            data,
            splits,
            config.buckets,
            seed=config.seed,
        ),
        curves={bucket: curves.read_curves(*both) for bucket, both in folders.items()},
        importance={bucket: curves.read_importance(after) for bucket, (_, after) in folders.items()},
        measures={bucket: curves.read_measures(after) for bucket, (_, after) in folders.items()},
        trained={bucket: curves.read_trained(*both) for bucket, both in folders.items()},
        ablation=curves.read_ablation(root / paths.ABLATION),
        reasoning=said,
        reviews={bucket: one for bucket, one in looked.items() if one is not None},
        market=config.data.market,
        data_version=outputs.data_version(root),
        severities=cost_variants(config.market),
        splits_text=splits.printed(times),
        sealed_text=outputs.days(splits.sealed, times),
        sealed_looks=len(
            looks_at(
                config.data.market,
                int(times[splits.sealed.first]),
                int(times[splits.sealed.stop - 1]),
                root / paths.OPENINGS,
            )
        ),
        sizings={bucket: sized(bucket) for bucket, walk in walked.items() if walk.traded_usdt > 0.0},
        start_equity_usdt=config.market.equity_usdt,
        data=data,
        splits=splits,
        buckets=config.buckets,
        sizing=config.sizing,
    )


def earlier_trials(root: Path, config: Config, opening: "Opening | None" = None) -> list[float]:
    """Sharpe ratios of what was judged on a span, or a part of it, before what is judged now; nan for none.

    The span is the opening's, by default the test span, which holds what was sealed once when the data have grown.
    Models of earlier openings count without a ratio, except those that are opened now: they may have been chosen by it.
    """
    from btcai.features.store import read_meta
    from btcai.params import flat
    from btcai.records.openings import looks_at
    from btcai.records.trials import JudgedSpan, trial_sharpes

    if opening is None:
        first_ts_ns, last_ts_ns = outputs.tested_ts_ns(root)
    else:
        first_ts_ns, last_ts_ns = opening.first_ts_ns, opening.last_ts_ns
    meta = read_meta(root / paths.FEATURES)
    judged = JudgedSpan(
        market=meta["market"], first_ts_ns=first_ts_ns, last_ts_ns=last_ts_ns, data_version=meta["data_version"]
    )
    present = {"config": flat(config), "code_version": versions.code_version()}
    seen = looks_at(judged.market, first_ts_ns, last_ts_ns, root / paths.OPENINGS)
    shown = {model for look in seen for model in look.models.items()}
    if opening is not None:
        shown -= set(opening.models.items())
    return [*trial_sharpes(root / paths.TRIALS, judged, present), *[math.nan] * len(shown)]


def incumbents(root: Path) -> "dict[str, Incumbent]":
    """The whole champions of models/champion: state, as the ledger of trials is. Who was chosen on bars that are
    judged on now is marked."""
    from btcai.evaluation.incumbents import Incumbent
    from btcai.inference.bundle import load_bundle
    from btcai.records import champions

    found, judged_from_ts_ns = {}, outputs.tested_ts_ns(root)[0]
    for bucket in BUCKETS:
        folder = root / paths.CHAMPION / bucket
        standing = champions.read_standing(folder) if champions.is_whole(folder) else None
        if standing is None:
            continue
        try:
            bundle = load_bundle(folder)
        except ArtifactError as error:  # of other features: `register` will place one of today's
            logger.warning("the champion of %s is not judged beside: %s", bucket, error)
            continue
        chosen = champions.seen_of(folder)
        unseen = chosen is not None and chosen["until_ts_ns"] < judged_from_ts_ns
        note = "" if unseen else "may have been chosen on bars of this span"
        found[bucket] = Incumbent(policy=bundle, settings=bundle.settings, note=note)
    return found
