"""What a run shows on its page and hears from it, without a server."""

import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from export_fakes import loud_bundle
from run_holder import another_run

from btcai import paths
from btcai.schema import BUCKETS

pytestmark = [
    pytest.mark.slow,  # Prefect's import
    pytest.mark.filterwarnings("ignore"),  # which warns of its own deprecations
]


def test_a_childs_line_is_on_the_page_at_its_own_level_without_a_second_time() -> None:
    from flows import artifacts

    said: list[tuple[int, str]] = []
    log = Mock(log=lambda level, form, text, extra: said.append((level, form % text)))
    for line in (
        "2026-11-29T21:59:13.008Z WARNING  btcai.training.progressive: short: PPO: the policy has collapsed",
        "2026-11-29T21:59:13.008Z CRITICAL btcai.stages: no room",
        "Data and pipelines are up to date.",
    ):
        artifacts.relay(log, line)
    assert said == [
        (logging.WARNING, "btcai.training.progressive: short: PPO: the policy has collapsed"),
        (logging.ERROR, "btcai.stages: no room"),
        (logging.INFO, "Data and pipelines are up to date."),
    ]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"validate": "skipped"}, "nothing had changed, so no stage had to run; champions unchanged"),
        ({"validate": "skipped", "export": "ran"}, "1 of 2 stages had to run; champions unchanged"),
    ],
)
def test_what_a_run_came_to_in_a_line(states: dict[str, str], expected: str) -> None:
    from flows import artifacts

    assert artifacts.headline(states, {}, {}) == expected


def test_bundles_that_cannot_be_read_count_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows import refresh

    log = Mock()
    monkeypatch.setattr(refresh, "get_run_logger", lambda: log)
    folder = tmp_path / paths.CANDIDATE / "scalping"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert refresh.candidate_missing(tmp_path)
    (form, reason), _ = log.warning.call_args
    assert "the whole pipeline runs" in form
    assert "manifest.json" in str(reason)


def test_a_damaged_bundle_is_no_leave_to_train_on_bars_that_nobody_has_looked_at(tmp_path: Path) -> None:
    from flows import refresh
    from flows.pipeline import StageFailed

    for bucket in BUCKETS:
        loud_bundle(tmp_path / paths.CANDIDATE / bucket, bucket)
    (tmp_path / paths.CANDIDATE / "long" / "head.onnx").write_bytes(b"cut")
    with pytest.raises(StageFailed, match=r"nothing was trained: .*long/head.onnx is missing or not .* btcai run"):
        refresh.candidate_missing(tmp_path)


def test_four_bundles_that_can_be_read_are_no_candidate_that_is_missing(tmp_path: Path) -> None:
    from flows import refresh

    for bucket in BUCKETS:
        loud_bundle(tmp_path / paths.CANDIDATE / bucket, bucket)
    assert not refresh.candidate_missing(tmp_path)


def test_the_time_limit_of_a_pause_is_off_as_soon_as_it_is_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    from prefect.states import Suspended

    from flows import steering

    run_id, kept = uuid4(), [Suspended(timeout_seconds=300)]
    client = SimpleNamespace(
        read_flow_run=lambda asked: SimpleNamespace(state=kept[-1]),
        set_flow_run_state=lambda asked, state, force: kept.append(state),
    )
    monkeypatch.setattr(steering, "get_client", lambda sync_client: nullcontext(client))
    monkeypatch.setattr(steering, "ASK_S", 0.0)
    listener = steering.Listener(tmp_path)
    listener._run_id = run_id
    assert kept[0].state_details.pause_timeout is not None
    for _ in range(2):
        assert isinstance(listener.look(), steering.Paused)
    assert [state.state_details.pause_timeout is None for state in kept] == [False, True]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [({}, "btcai run"), ({"force": False}, "btcai run"), ({"force": True}, "btcai run --force")],
)
def test_what_goes_on_with_a_run_is_forced_where_it_was(parameters: dict[str, bool], expected: str) -> None:
    from flows import steering

    assert steering.command(parameters) == expected


@pytest.mark.parametrize(
    ("scheduled", "force", "expected"),
    [
        (False, False, "btcai run"),
        (False, True, "btcai run --force"),
        (True, False, "Retry on PAGE, btcai run, or the schedule"),
        (True, True, "Retry on PAGE, btcai run --force"),
    ],
)
def test_a_notice_of_a_failure_says_what_goes_on_with_that_run(
    monkeypatch: pytest.MonkeyPatch, scheduled: bool, force: bool, expected: str
) -> None:
    from prefect.states import Failed

    from flows import news

    said: list[str] = []
    monkeypatch.setattr(news, "notify", lambda event, title, body: said.append(body))
    monkeypatch.setattr(news, "url_for", lambda kind, run_id: "PAGE")
    run: Any = SimpleNamespace(
        id=uuid4(), name="x", parameters={"force": force}, deployment_id=uuid4() if scheduled else None
    )
    news.tell_end("btcai", run, Failed(message="no room"))
    assert said == [f"run x: no room\nwhat helps: what was finished is kept; mend it, then go on with: {expected}"]


def test_pause_and_cancel_say_who_is_at_work_without_a_record_that_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import control

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert control.pause(tmp_path) == control.cancel(tmp_path) == "nothing runs"
        with another_run(tmp_path) as other:
            (tmp_path / paths.RUN_LOCK).with_suffix(".json").write_text('{"host": "a"}', encoding="utf-8")
            assert f"process {other.pid} (" in control.pause(tmp_path)
            assert control.cancel(tmp_path) == control.pause(tmp_path)
            assert other.poll() is None
