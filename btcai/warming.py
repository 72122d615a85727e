"""`warm_start.name` of params.yaml, moved to the networks of the last run or back to none."""

from pathlib import Path

from btcai import paths
from btcai.config import Config
from btcai.data.funding import read_funding, with_funding
from btcai.data.store import content_sha256, read_market
from btcai.errors import ArtifactError
from btcai.inference.bundle import load_bundle
from btcai.params import set_param
from btcai.records import champions
from btcai.schema import BUCKETS
from btcai.training import starts

SETTING = "warm_start.name"


def go_on(root: Path, config: Config) -> tuple[str, str]:
    """Let the next training go on from artifacts/consolidate; returns the setting as it was and as it is.

    What those networks saw is in the manifest of the bundle that was made of them. Nothing changes while there are no
    other bars: one would train on the same again. ArtifactError where no finished run is there to go on from.
    """
    folder = root / paths.CANDIDATE / BUCKETS[0]
    load_bundle(folder)  # or an error that says what is missing
    found = champions.seen_of(folder)
    if found is None:
        raise ArtifactError(
            f"{folder} must say what it was trained on, was made by an older btcai; make it again with: btcai run"
        )
    seen = starts.DataSeen(**found)
    if config.data.market != seen.market:
        raise ArtifactError(
            f"the last run must have been of {config.data.market} to go on from it, was of {seen.market}; train it "
            "from scratch first: btcai warm-start --off, then btcai run"
        )
    if _bars_now(root, config.data.market) == seen.data_version:
        return config.warm_start.name, config.warm_start.name
    with starts.alone(root / paths.STARTS):
        name = starts.keep(root / paths.CONSOLIDATE, seen, root / paths.STARTS)
        return set_param(root / paths.PARAMS, SETTING, name)


def off(root: Path) -> tuple[str, str]:
    """Let the next training start from scratch."""
    return set_param(root / paths.PARAMS, SETTING, starts.NONE)


def _bars_now(root: Path, market: str) -> str:
    folder = root / paths.DATA / market
    return with_funding(content_sha256(read_market(root / paths.DATA, market)), read_funding(folder))
