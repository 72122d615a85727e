"""What `reflect` leaves for a bundle."""

from pathlib import Path

import numpy as np
from export_fakes import market

from btcai.inference.bundle import PolicyBundle
from btcai.reasoning.adjustment import Adjustment, adjustment_json
from btcai.reasoning.attribution import Worth
from btcai.reasoning.components import COMPONENTS
from btcai.reasoning.memory import Situations, new_memory
from btcai.reasoning.memory_file import save_memory
from btcai.reasoning.remembering import remember
from btcai.reflection import ADJUSTMENT, MEMORY
from btcai.schema import BAR_NS, Span

ROWS = range(2_100, 4_000, 12)
"""Of the simulated market, which are remembered."""


def learn(folder: Path, bundle: PolicyBundle, first_weight: float, components: tuple[str, ...] = COMPONENTS) -> None:
    """What `reflect` leaves for a bundle: a memory, and weights of which the first one is its mark."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps, latents = market().bars.close_ts_ns[list(ROWS)], np.tanh(market().features[list(ROWS)])
    known = Situations(
        close_ts_ns=stamps,
        known_ts_ns=stamps + bundle.horizons_bars[0] * BAR_NS,
        embedding=latents,
        outcome=np.linspace(-1, 1, len(stamps)),
    )
    empty = new_memory(latents, stamps, model_version=bundle.version, horizon_bars=bundle.horizons_bars[0])
    save_memory(remember(empty, known, int(known.known_ts_ns[-1])), folder / MEMORY)
    weights = (first_weight, *(1.0 for _ in components[1:]))
    nothing = {"weight": 1.0, "value": 0.0, "low": -1.0, "high": 1.0, "alone": 0.0, "without": 0.0}
    adjustment = Adjustment(
        before=weights,
        after=weights,
        worths=tuple(Worth(component=name, **nothing) for name in components),
        span=Span(10, 20),
        decisions=10,
        step=0.5,
        floor=0.02,
        made_from=(("model", bundle.version),),
    )
    (folder / ADJUSTMENT).write_text(adjustment_json(adjustment), encoding="utf-8")
