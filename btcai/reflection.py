"""What a bundle learns from what happened: a memory of situations, and weights of its reasoning's components.

Situations and outcomes are those of the training and the validation span; nothing that is judged or sealed is read.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from btcai import paths
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.evaluation.backtest import decisions_with_history, encode_decisions
from btcai.evaluation.reliability import outcomes
from btcai.evaluation.voices import scores_at, worth_on
from btcai.features.splits import Splits
from btcai.inference.bundle import PolicyBundle
from btcai.reasoning.adjustment import Adjustment, adjust, adjustment_json, read_adjustment
from btcai.reasoning.components import COMPONENTS
from btcai.reasoning.memory import Memory, Situations, new_memory
from btcai.reasoning.memory_file import load_memory, save_memory
from btcai.reasoning.remembering import key_situations, recall_in_order, remember
from btcai.schema import BAR_NS, BUCKETS, BoolArray, IntArray, MarketData, Span

logger = logging.getLogger(__name__)

MEMORY, ADJUSTMENT = "memory.npz", "adjustment.json"
MOST_USUAL = 20_000
"""Of the training span's situations, the newest: what distances are measured by, and what is remembered at most."""


@dataclass(frozen=True, kw_only=True)
class Reflection:
    """memory: of key situations up to the end of the validation span. adjustment: of the components' weights, measured
    on that span. recalled_frac: of its decisions, those for which something like it was known before; lean_ic: the
    correlation of what was recalled with what came, and lean_error, its standard error as of independent outcomes."""

    memory: Memory
    adjustment: Adjustment
    recalled_frac: float
    lean_ic: float
    lean_error: float


def reflect(
    bundle: PolicyBundle, data: MarketData, splits: Splits, config: Config, made_from: Mapping[str, str]
) -> Reflection:
    """Remember the training span, recall and remember along the validation span, and weigh the components there."""
    place = BUCKETS.index(bundle.bucket) + 1
    logger.info("%s, %d of %d: recalling training and validation span", bundle.bucket, place, len(BUCKETS))
    past, _ = _situations(bundle, data, splits.train)
    usual = past[-MOST_USUAL:]
    memory = new_memory(
        usual.embedding,
        usual.close_ts_ns,
        model_version=bundle.version,
        horizon_bars=bundle.horizons_bars[0],
    )
    keys = np.flatnonzero(_keys(memory, past, bundle) & np.isfinite(past.outcome))[-MOST_USUAL:]
    memory = remember(memory, past[keys], _end(data, splits.train))
    now, decisions = _situations(bundle, data, splits.valid)
    found, memory = recall_in_order(
        memory,
        now,
        _keys(memory, now, bundle),
        until_ts_ns=_end(data, splits.valid),
        model_version=bundle.version,
    )
    known = np.isfinite(now.outcome)
    overlap = max(1.0, bundle.horizons_bars[0] / bundle.patch_bars)
    lean = found.lean[known]
    said = scores_at(decisions, data, config, bundle.bucket)
    attribution = worth_on(splits.valid, decisions, said, data, splits, config, bundle.bucket)
    return Reflection(
        memory=memory,
        adjustment=adjust(attribution, splits, made_from),
        recalled_frac=float(np.mean(found.outcomes > 0)),
        lean_ic=float(np.corrcoef(lean, now.outcome[known])[0, 1]) if np.ptp(lean) > 0 else float("nan"),
        lean_error=float(np.sqrt(overlap / max(1, known.sum()))),
    )


def _situations(bundle: PolicyBundle, data: MarketData, span: Span) -> tuple[Situations, IntArray]:
    """The span's decisions with their latents, and what came of them over the shortest horizon inside the span."""
    decisions = decisions_with_history(bundle, data, span)
    horizon = bundle.horizons_bars[0]
    outcome, known = outcomes(data, span, decisions, np.array([horizon]))
    close_ts_ns = np.asarray(data.bars.close_ts_ns[decisions])
    return Situations(
        close_ts_ns=close_ts_ns,
        known_ts_ns=close_ts_ns + horizon * BAR_NS,
        embedding=encode_decisions(bundle, data, decisions).latent,
        outcome=np.where(known[:, 0], outcome[:, 0], np.nan),
    ), decisions


def _keys(memory: Memory, situations: Situations, bundle: PolicyBundle) -> BoolArray:
    """Unusual situations and the first of every horizon; a memory that is made offline acted on none."""
    nothing = np.zeros(len(situations), np.bool_)
    return key_situations(memory, situations.embedding, situations.close_ts_ns, nothing, bundle.patch_bars)


def _end(data: MarketData, span: Span) -> int:
    return int(data.bars.close_ts_ns[span.stop - 1])


def save(reflection: Reflection, folder: Path) -> None:
    """memory.npz and adjustment.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_memory(reflection.memory, folder / MEMORY)
    (folder / ADJUSTMENT).write_text(adjustment_json(reflection.adjustment), encoding="utf-8")


def memory_of(folder: Path, version: str) -> Memory | None:
    """The memory there, where it is of this model's version; None where there is none, or another model's."""
    try:
        memory = load_memory(folder / MEMORY)
    except ArtifactError:
        if (folder / MEMORY).is_file():
            raise
        return None
    return memory if memory.model_version == version else None


def weights_of(folder: Path, version: str) -> dict[str, float] | None:
    """The components' weights there, where they are of this model's version; else None. ArtifactError where they are of
    other components than today's."""
    path = folder / ADJUSTMENT
    if not path.is_file():
        return None
    adjustment = read_adjustment(path.read_text(encoding="utf-8"))
    if dict(adjustment.made_from).get("model") != version:
        return None
    if odd := adjustment.weights.keys() ^ set(COMPONENTS):
        raise ArtifactError(
            f"{path} must weigh the components of this btcai, differs in {', '.join(sorted(odd))}; measure again "
            "with btcai run, then choose that version with: btcai registry promote"
        )
    return adjustment.weights


class Learned(NamedTuple):
    """What a model's explanations recall, and what its components weigh; None where nothing was learned for it."""

    memory: Memory | None = None
    weights: Mapping[str, float] | None = None


def learned_for(version: str, champion: Path) -> Learned:
    """What was learned for this version, kept with its champion; the log says if it is damaged or missing whole."""
    try:
        found = Learned(memory_of(champion / paths.LEARNED, version), weights_of(champion / paths.LEARNED, version))
        remedy = f"make one with btcai run, then choose it with: btcai registry promote {champion.name} VERSION"
        reason = "" if found.memory or found.weights else f"nothing was kept with this version; {remedy}"
    except ArtifactError as error:
        found, reason = Learned(), str(error)
    if reason:
        logger.warning("%s: explained without memory and with equal weights: %s", champion.name, reason)
    return found


def metrics_json(found: Mapping[str, Reflection]) -> str:
    """What `dvc metrics` lines up: how often something alike was known, and whether that told anything."""
    figures = {
        bucket: {
            "situations": len(one.memory),
            "recalled_frac": one.recalled_frac,
            "lean_ic": one.lean_ic if np.isfinite(one.lean_ic) else None,
            "lean_error": one.lean_error,
            "components_moved": len(one.adjustment.moved),
        }
        for bucket, one in found.items()
    }
    return json.dumps(figures, indent=1, allow_nan=False) + "\n"


def table(found: Mapping[str, Reflection]) -> pd.DataFrame:
    """A row per bucket and component: weight before and after, worth with its interval."""
    rows = [
        {"bucket": bucket, "component": worth.component, "before": before, "after": after, "worth": worth.value,
         "low": worth.low, "high": worth.high, "significant": worth.is_significant}
        for bucket, reflection in found.items()
        for worth, before, after in zip(
            reflection.adjustment.worths, reflection.adjustment.before, reflection.adjustment.after, strict=True
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)
