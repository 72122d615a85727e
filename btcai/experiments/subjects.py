"""The markets that settings are tried on, by name."""

from pathlib import Path

from btcai import outputs, paths
from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments.history import History
from btcai.experiments.known_answer import MARKETS, KnownAnswer, Size


def open_subject(on: str, config: Config, root: Path) -> KnownAnswer | History:
    """The yardstick's, or the market in use of the project in `root`; teachers are kept there."""
    teachers = root / paths.ABLATION / "teachers"
    if on in MARKETS:
        return KnownAnswer(config, Size(), teachers, on)
    if on == History.name:
        return History(config, *outputs.load_features(root), outputs.data_version(root), teachers)
    raise ConfigError(f"--on must be {', '.join(MARKETS)} or {History.name}, was {on}; mend --on")
