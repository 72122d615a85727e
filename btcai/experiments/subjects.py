"""The markets that settings are tried on, by name."""

from pathlib import Path

from btcai import paths, stages
from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments.history import History
from btcai.experiments.two_scale import Size, TwoScale


def open_subject(on: str, config: Config, root: Path) -> TwoScale | History:
    """The yardstick's, or the market in use of the project in `root`; teachers are kept there."""
    teachers = root / paths.ABLATION / "teachers"
    if on == TwoScale.name:
        return TwoScale(config, Size(), teachers)
    if on == History.name:
        return History(config, *stages.load_features(root), stages.data_version(root), teachers)
    raise ConfigError(
        f"--on must be {TwoScale.name} or {History.name}, was {on}; run: btcai ablate --on {TwoScale.name}"
    )
