"""params.yaml changed in place: comments stay, what the rules refuse changes nothing."""

import shutil
from pathlib import Path

import pytest

from btcai import paths
from btcai.config import set_param
from btcai.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


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
