"""What people are told of a run beside its pages: it failed, the bars drifted, a champion is new, no bars come."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow

from btcai import paths
from btcai.champions import Standing, read_standing
from btcai.errors import ArtifactError
from btcai.notices import notify
from btcai.params import load_config
from btcai.schema import BUCKETS

SILENT_H = 12.0
"""The market never closes: where no bar came for so long, the exchange or the network withholds them."""
HOUR_MS = 3_600_000

Standings = Mapping[str, Standing | None]


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: Prefect calls it by these names."""
    what = "was killed" if state.is_crashed() else "failed"
    again = "what was finished is kept: after mending it, go on with btcai run, or leave it to the schedule"
    notify("failed", f"{flow.name} {what}", f"run {flow_run.name}: {state.message or state.name}; {again}")


def standings(root: Path) -> dict[str, Standing | None]:
    """Each bucket's champion; None where there is none, or none that can be read."""
    found: dict[str, Standing | None] = {}
    for bucket in BUCKETS:
        try:
            found[bucket] = read_standing(root / paths.CHAMPION / bucket)
        except ArtifactError:
            found[bucket] = None
    return found


def changes(before: Standings, after: Standings) -> list[tuple[str, str]]:
    """Buckets whose champion is another one now, and in what."""
    told = []
    for bucket, new in after.items():
        old = before.get(bucket)
        if new is None or (old is not None and old.run_id == new.run_id and old.edge == new.edge):
            continue
        what = f"version {new.version}, score {new.score:.4g}, edge {new.edge}"
        told.append((bucket, f"{what}; before: " + (f"version {old.version}, edge {old.edge}" if old else "none")))
    return told


def tell_champions(before: Standings, after: Standings) -> None:
    """One notice of all buckets whose champion changed."""
    if told := changes(before, after):
        proven = [bucket for bucket, _ in told if (new := after[bucket]) and new.edge == "proven"]
        title = (
            f"edge proven: {', '.join(proven)}" if proven else f"new champion: {', '.join(name for name, _ in told)}"
        )
        notify("champion", title, "\n".join(f"{bucket}: {what}" for bucket, what in told))


def tell_drift(verdict: str, reasons: str) -> None:
    """A notice where the newest bars are not as those trained on."""
    if verdict != "steady":
        what = "nothing is trained until somebody has looked" if verdict == "look_first" else "training again"
        notify("drift", f"the newest bars have drifted: {what}", f"{reasons}; see {paths.DRIFT}, or: btcai drift")


def tell_silence(root: Path) -> None:
    """A notice where a fetched market's newest bar is older than SILENT_H."""
    from btcai.data.sources import clock_ms

    if (newest := _newest_ms(root)) is None:
        return
    hours = (clock_ms() - newest) / HOUR_MS
    if hours > SILENT_H:
        market = load_config(root / paths.PARAMS).data.market
        notify(
            "no data",
            f"no new bars of {market} for {hours:.0f} h",
            "the exchange or the network withholds them; see the log, and try: btcai data update",
        )


def _newest_ms(root: Path) -> int | None:
    """Opening time of the newest bar of the market in use; None where it was not fetched, so that none can come."""
    from btcai.data import frame, store
    from btcai.fetch.origin import read_origin

    market = load_config(root / paths.PARAMS).data.market
    if read_origin(root / paths.DATA / market) is None:
        return None
    return int(frame.parts(store.read_market(root / paths.DATA, market))[0][-1])
