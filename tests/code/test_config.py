"""params.yaml changed in place: comments stay, what the rules refuse changes nothing."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from btcai import paths
from btcai.config import Config
from btcai.errors import ConfigError
from btcai.params import changed, load_config, set_param

ROOT = Path(__file__).resolve().parents[2]
TIER = {"traded_usdt": 1.0, "maker_factor": 0.9, "taker_factor": 0.9}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / paths.PARAMS, tmp_path / paths.PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_set_param_keeps_comments_and_refuses_what_the_rules_refuse(project: Path) -> None:
    before = Path("params.yaml").read_text(encoding="utf-8")
    assert set_param(Path("params.yaml"), "data.market", "btcusdt") == ("simulated", "btcusdt")
    after = Path("params.yaml").read_text(encoding="utf-8")
    assert after == before.replace("market: simulated", "market: btcusdt")
    with pytest.raises(ConfigError, match="profile"):
        set_param(Path("params.yaml"), "profile", "huge")
    assert Path("params.yaml").read_text(encoding="utf-8") == after


@pytest.mark.parametrize("value", ["qick", "[qui"])
def test_a_refused_value_is_named_with_the_file_that_stays(project: Path, value: str) -> None:
    before = (project / paths.PARAMS).read_bytes()
    with pytest.raises(ConfigError) as raised:
        set_param(project / paths.PARAMS, "profile", value)
    assert str(raised.value).startswith(f"{project / paths.PARAMS}")
    assert value in str(raised.value)
    assert "draft" not in str(raised.value)
    assert str(raised.value).endswith("params.yaml keeps profile: quick; give another value")
    assert (project / paths.PARAMS).read_bytes() == before
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_a_setting_that_cannot_be_written_leaves_the_file_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (project / paths.PARAMS).read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        set_param(project / paths.PARAMS, "profile", "full")
    assert (project / paths.PARAMS).read_bytes() == before
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_writing_a_setting_keeps_the_files_permissions(project: Path) -> None:
    (project / paths.PARAMS).chmod(0o644)
    set_param(project / paths.PARAMS, "profile", "full")
    assert (project / paths.PARAMS).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"market": {"transfers": {"every_days": 7}}}, "every_days and usdt need each other, was 7 and 0.0"),
        ({"market": {"transfers": {"max_frac": 0.1}}}, "daily_probability and max_frac need each other"),
        ({"market": {"transfers": {"every_days": 7, "usdt": float("nan")}}}, "finite number"),
        ({"market": {"perpetual": {"allow_short": True}}}, "allow_short needs enabled: true"),
        (
            {
                "market": {"perpetual": {"enabled": True, "allow_short": True}},
                "sizing": {"strategy": "full_probabilistic"},
            },
            "allow_short needs sizing.strategy uncertainty_adjusted",
        ),
        (
            {"market": {"exchange": {"fee_tiers": [TIER | {"traded_usdt": 2.0}, TIER]}}},
            "fee_tiers must have increasing traded_usdt, was [2.0, 1.0]",
        ),
    ],
)
def test_market_settings_that_do_not_fit_together_are_refused(change: dict[str, Any], rule: str) -> None:
    raw = load_config(ROOT / paths.PARAMS).model_dump(mode="json")
    for section, parts in change.items():
        for part, values in parts.items():
            raw[section][part] = raw[section][part] | values if isinstance(values, dict) else values
    with pytest.raises(ValidationError, match=re.escape(rule)):
        Config.model_validate(raw)


@pytest.mark.parametrize(
    ("bucket", "horizons_bars", "policy", "rule"),
    [
        ("medium", (10, 1008, 2016), False, "horizons_bars must increase from above patch_bars, was (10, 1008, 2016)"),
        ("medium", (288, 288, 2016), False, "horizons_bars must increase from above patch_bars"),
        ("long", (2016, 4032), True, "transfer.policy needs equally many horizons_bars in every bucket"),
    ],
)
def test_horizons_that_cannot_be_predicted_or_handed_on_are_refused(
    bucket: str, horizons_bars: tuple[int, ...], policy: bool, rule: str
) -> None:
    raw = load_config(ROOT / paths.PARAMS).model_dump(mode="json")
    raw["transfer"]["policy"] = policy
    Config.model_validate(raw)
    raw["buckets"][bucket]["horizons_bars"] = horizons_bars
    with pytest.raises(ValidationError, match=re.escape(rule)):
        Config.model_validate(raw)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"ppo.replay.trajectories": 4}, "replay.trajectories must be a multiple of 2 * head_minibatches, was 4 / 4"),
        ({"ppo.replay.trajectories": 8, "ppo.cost_ramp_frac": 0.1}, "replay.trajectories needs cost_ramp_frac 0"),
        ({"ppo.replay.trajectories": 136}, "at most stretches * replay.max_age_updates, was 136 > 16 * 8"),
        ({"ppo.replay.trajectories": 8, "ppo.temperature": 2.0}, "replay.trajectories needs temperature 1"),
        ({"ppo.replay.trajectories": 8, "ppo.encoder_every": 2}, "replay.trajectories needs encoder_every 0"),
        ({"ppo.replay.trajectories": 8, "transfer.kickstart": 1.0}, "transfer.kickstart needs ppo.replay"),
        ({"ppo.replay.prioritised": 0.95}, "less than or equal to 0.9, was 0.95"),
        ({"pretrain.horizon_skill": -0.1}, "greater than or equal to 0, was -0.1"),
    ],
)
def test_ways_to_learn_that_do_not_fit_together_are_refused(changes: dict[str, float], rule: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(rule)):
        changed(load_config(ROOT / paths.PARAMS), changes)


def test_an_update_has_to_train_something(project: Path) -> None:
    set_param(project / paths.PARAMS, "ppo.encoder_every", "1")
    set_param(project / paths.PARAMS, "ppo.head_epochs", "0")  # the whole network learns at every update
    for every in ("0", "2"):
        with pytest.raises(ConfigError, match="head_epochs must be at least 1 where encoder_every is not 1"):
            set_param(project / paths.PARAMS, "ppo.encoder_every", every)
