"""The server's answers: what it says to good requests, to bad ones, and of itself. In process, without a port."""

import asyncio
import json
from dataclasses import fields
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from export_fakes import hand_made_bundle, market
from fastapi import FastAPI
from serving_fakes import (
    ACCOUNTS,
    HELD,
    app_of,
    champion,
    cut,
    expect_as_told,
    new_service,
    plain,
    raw_rows,
    standing,
    talk,
)

from btcai import paths
from btcai.errors import ConfigError
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide
from btcai.machine import Machine
from btcai.reasoning.records import Reasoning
from btcai.records.champions import place_champion
from btcai.schema import Action, Decision
from btcai.serving import app as app_module
from btcai.serving import gate, server
from btcai.serving import service as service_module
from btcai.serving.app import ENDPOINTS
from btcai.serving.service import Service

NEEDED = 144 + WARMUP_BARS
STOP = 9_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with champions of two buckets."""
    root = tmp_path_factory.mktemp("project")
    champion(root, "scalping")
    champion(root, "short", seed=1)
    return root


@pytest.fixture
def service(root: Path) -> Service:
    return new_service(root, "scalping", "short")


@pytest.fixture(scope="module")
def app(root: Path) -> FastAPI:
    """For what changes nothing in it."""
    return app_of(new_service(root, "scalping", "short"))


def wanted(root: Path, bucket: str, stop: int, account: dict[str, Any] | None) -> dict[str, Any]:
    return plain(decide(load_bundle(root / paths.CHAMPION / bucket), cut(market().bars, stop, 2_400), account))


BARS = {"bars": raw_rows(STOP, 2_400)}


@pytest.mark.parametrize("account", [None, HELD], ids=["flat", "invested"])
def test_one_decision_on_bars_in_the_body_is_that_of_decide_json(
    root: Path, service: Service, account: dict[str, Any] | None
) -> None:
    (response,) = talk(app_of(service), ("POST", "/v1/decide", {"bucket": "scalping", "account": account, **BARS}))
    assert response.status_code == 200
    assert response.json() == wanted(root, "scalping", STOP, account)


def test_a_market_goes_on_bar_by_bar_and_its_decisions_are_those_on_all_its_bars(root: Path, service: Service) -> None:
    app, short = app_of(service), {"bucket": "short", "market": "btcusdt"}
    began, first, more, second, both = talk(
        app,
        ("POST", "/v1/bars", {"bars": raw_rows(STOP, 2_400)}),
        ("POST", "/v1/decide", short),
        ("POST", "/v1/bars", {"bars": raw_rows(STOP + 3, 3)}),
        ("POST", "/v1/decide", short | {"account": HELD}),
        ("POST", "/v1/decide", {"bucket": "scalping"}),
    )
    close = str(market().bars.close_ts_ns[STOP + 2].astype("datetime64[ns]").astype("datetime64[s]"))
    assert began.json()["bars_kept"] == 2_400
    assert (more.json()["bars_given"], more.json()["bars_kept"], more.json()["last_close"]) == (3, 2_403, f"{close}Z")
    watched = {"intervals": "adaptive"}  # which are the static ones until an outcome is known
    assert first.json() == wanted(root, "short", STOP, None) | watched
    assert second.json() == wanted(root, "short", STOP + 3, HELD) | watched
    assert both.json() == wanted(root, "scalping", STOP + 3, None) | watched


def test_quantiles_of_a_watched_market_follow_its_outcomes_and_nothing_else_does(root: Path, service: Service) -> None:
    app, asked = app_of(service), ("POST", "/v1/decide", {"bucket": "scalping", "account": HELD})
    _, _, _, second, batch, explained, alone = talk(
        app,
        ("POST", "/v1/bars", {"bars": raw_rows(STOP, 2_400)}),
        asked,
        ("POST", "/v1/bars", {"bars": raw_rows(STOP + 3, 3)}),  # the shortest horizon has ended
        asked,
        ("POST", "/v1/decide/batch", {"questions": [{"bucket": "scalping", "account": HELD}]}),
        ("POST", "/v1/decide", {"bucket": "scalping", "account": HELD, "explain": True}),
        ("POST", "/v1/decide", {"bucket": "scalping", "account": HELD, "bars": raw_rows(STOP + 3, 2_400)}),
    )
    static, adaptive = alone.json(), second.json()
    assert static == wanted(root, "scalping", STOP + 3, HELD)
    assert (static["intervals"], adaptive["intervals"]) == ("static", "adaptive")
    moved = [one.pop("quantiles") != other.pop("quantiles") for one, other in zip(
        static["forecasts"], adaptive["forecasts"], strict=True
    )]  # fmt: skip
    assert moved == [True, False, False]
    assert adaptive | {"intervals": "static"} == static
    assert batch.json()["answers"] == [second.json()]
    assert {**second.json(), "reasoning": explained.json()["reasoning"]} == explained.json()
    low, *_, high = second.json()["forecasts"][0]["quantiles"]
    (step,) = [one for one in explained.json()["reasoning"]["steps"] if one["name"] == "forecast"]
    assert (step["facts"]["low_3"], step["facts"]["high_3"]) == (low, high)
    assert "interval (adaptive) and" in step["sentence"]


def test_a_batch_is_answered_in_order_with_one_encoding_a_bucket(root: Path, service: Service) -> None:
    asked = [("scalping", 0), ("short", 1), ("scalping", 2), ("long", 0), ("short", 3), ("scalping", 1)]
    questions = [{"bucket": bucket, "account": ACCOUNTS[k]} for bucket, k in asked]
    questions.append({"bucket": "short", "account": {"cash_usdt": -1.0}})
    (response,) = talk(app_of(service), ("POST", "/v1/decide/batch", {"questions": questions, **BARS}))
    *answers, wrong = response.json()["answers"]
    for (bucket, k), answer in zip(asked, answers, strict=True):
        if bucket == "long":
            assert answer == {"bucket": "long", "error": answer["error"]}
            assert "start it with --bucket long" in answer["error"]
        else:
            assert answer == wanted(root, bucket, STOP, ACCOUNTS[k])
    assert "cash_usdt must be a number from 0" in wrong["error"]
    text = service.metrics.text(service.shelf).decode()
    assert 'btcai_looks_total{bucket="scalping",encoder="ran"} 1.0' in text
    assert 'btcai_looks_total{bucket="short",encoder="ran"} 1.0' in text


def test_an_explained_decision_brings_every_step(root: Path, service: Service) -> None:
    (response,) = talk(app_of(service), ("POST", "/v1/decide", {"bucket": "scalping", "explain": True, **BARS}))
    answer = response.json()
    reasoning = answer.pop("reasoning")
    assert answer == wanted(root, "scalping", STOP, None)
    assert reasoning["action"] == answer["action"]
    assert reasoning["account"] == "flat with 100,000 USDT (none given)"
    assert [step["name"] for step in reasoning["steps"]][-1] == "decision"


def one_bar(**changes: Any) -> list[list[Any]]:
    row = dict(zip(("time", "open", "high", "low", "close", "volume"), raw_rows(STOP + 1, 1)[0], strict=True))
    return [list((row | changes).values())]


DECIDE, BATCH, APPEND = "/v1/decide", "/v1/decide/batch", "/v1/bars"


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        (
            DECIDE,
            {"bucket": "tiny", **BARS},
            422,
            "bucket: Input should be 'scalping', 'short', 'medium' or",
        ),
        (DECIDE, {"bucket": "scalping", "acount": None, **BARS}, 422, "acount: Extra inputs are not permitted"),
        (DECIDE, {"bucket": "scalping", "market": "btcusdt", **BARS}, 422, "give bars or a market, not both"),
        (
            DECIDE,
            {"bucket": "scalping", "market": "eth"},
            404,
            "the market eth was given none since this server",
        ),
        (DECIDE, {"bucket": "scalping"}, 404, "the market btcusdt was given none"),
        (DECIDE, {"bucket": "scalping", "bars": raw_rows(STOP, NEEDED - 1)}, 422, "scalping needs 2160 bars"),
        (DECIDE, {"bucket": "scalping", "account": {"lots": []}, **BARS}, 422, 'an account needs "cash_usdt"'),
        (DECIDE, {"bucket": "scalping", "account": [], **BARS}, 422, "account: Input should be a valid dictionary"),
        (DECIDE, {"bucket": "long", **BARS}, 503, "serves scalping, short, was asked for long"),
        (DECIDE, {"bucket": "scalping", "bars": []}, 422, "bars: List should have at least 1 item"),
        (DECIDE, {"bucket": "scalping", "bars": [[1, 2, 3]]}, 422, "bars.0.3: Field required"),
        (DECIDE, {"bucket": "scalping", "bars": one_bar(time=10**30)}, 422, "bars.0.0: Input should be less than"),
        (BATCH, {"questions": []}, 422, "questions: List should have at least 1 item"),
        (APPEND, {"bars": one_bar(high=1.0)}, 422, "high must not be below low"),
        (APPEND, {"bars": one_bar(time=4_102_444_800_000)}, 422, "a bar must not be from the future"),
        (APPEND, {"bars": one_bar(time=1_704_067_201_000)}, 422, "must open on the 5-minute grid"),
        (APPEND, {"market": "../x", "bars": one_bar()}, 422, "market: String should match pattern"),
        (DECIDE, b"{", 400, "the body is no JSON: Expecting property name enclosed in double quotes at character 1"),
        (DECIDE, b'{"5": tru', 400, "the body is no JSON: Expecting value at character 6; see /openapi.json"),
        (DECIDE, b"", 422, "Field required"),
        (DECIDE, b"[" * 100_000, 400, "the body must be JSON that can be read: UTF-8, and not nested deeply"),
        (DECIDE, b'{"bucket": "\xff"}', 400, "the body must be JSON that can be read: UTF-8"),
        (
            DECIDE,
            {f"key{k}": 1 for k in range(6)},
            422,
            "there are no more fields than bars, market, bucket, account, ",
        ),
        (DECIDE, {"bucket": "short", "bars": "x" * 10_000}, 422, "bars: Input should be a valid list, was 'xxx"),
        (DECIDE, {"bucket": "scalping", "account": {"cash_usdt": [0] * 9_000}, **BARS}, 422, "was a list of 9,000"),
        (
            APPEND,
            {"bars": [one_bar(time=1_577_836_800_000)[0], *one_bar()]},
            422,
            "must span at most 20,000 of 5 minutes",
        ),
        ("/v1/other", {}, 404, "Not Found; there are /health"),
        ("/ready", {}, 405, "Method Not Allowed"),
    ],
)
def test_a_bad_request_is_refused_with_rule_value_and_remedy(
    app: FastAPI, path: str, body: Any, status: int, error: str
) -> None:
    (response,) = talk(app, ("POST", path, body))
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert error in response.json()["error"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_and_the_answer_is_strict_json(app: FastAPI, text: str) -> None:
    with_account = {"bucket": "scalping", "account": {"cash_usdt": 1.25}, **BARS}
    row = json.dumps(one_bar()).replace(str(one_bar()[0][2]), text)
    in_bars, in_account = talk(
        app,
        ("POST", APPEND, f'{{"bars": {row}}}'.encode()),
        ("POST", DECIDE, json.dumps(with_account).replace('"cash_usdt": 1.25', f'"cash_usdt": {text}').encode()),
    )
    for response in (in_bars, in_account):
        assert response.status_code == 422
        json.loads(response.text, parse_constant=lambda constant: pytest.fail(constant))


def test_gaps_repeats_and_old_bars_are_conflicts_and_an_allowed_gap_is_missing(root: Path, service: Service) -> None:
    app = app_of(service)
    began, repeated, old, gap, allowed, decided, again = talk(
        app,
        ("POST", APPEND, {"bars": raw_rows(STOP, 2_300)}),
        ("POST", APPEND, {"bars": raw_rows(STOP, 1)}),
        ("POST", APPEND, {"bars": raw_rows(STOP - 5, 2)}),
        ("POST", APPEND, {"bars": raw_rows(STOP + 4, 1)}),
        ("POST", APPEND, {"bars": raw_rows(STOP + 4, 1), "allow_gap": True}),
        ("POST", DECIDE, {"bucket": "scalping"}),
        ("POST", APPEND, {"bars": raw_rows(STOP - 5, 2_200), "restart": True}),
    )
    assert [response.status_code for response in (began, repeated, old, gap, allowed, decided, again)] == [
        200, 409, 409, 409, 200, 200, 200,
    ]  # fmt: skip
    assert "give the 3 bars between too" in gap.json()["error"]
    assert allowed.json()["bars_kept"] == 2_304
    (holed,) = talk(
        app, ("POST", DECIDE, {"bucket": "scalping", "bars": raw_rows(STOP, 2_300) + raw_rows(STOP + 4, 1)})
    )
    assert decided.json() == holed.json() | {"intervals": "adaptive"}
    assert again.json()["bars_kept"] == 2_200


def test_only_so_many_markets_are_watched(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_MARKETS", 1)
    body = {"bars": raw_rows(STOP, 2)}
    first, second = talk(
        app_of(service), ("POST", APPEND, {"market": "a", **body}), ("POST", APPEND, {"market": "b", **body})
    )
    assert (first.status_code, second.status_code) == (200, 422)
    assert "watches at most 1 markets, b would be one more" in second.json()["error"]


def test_health_readiness_and_version_say_what_is_in_use_and_what_was_refused(tmp_path: Path) -> None:
    made = champion(tmp_path, "scalping")
    service = new_service(tmp_path, "scalping", "short")
    app = app_of(service)
    health, not_ready = talk(app, ("GET", "/health"), ("GET", "/ready"))
    assert (health.status_code, health.json()) == (200, {"status": "alive"})
    version = load_bundle(made).version
    assert (not_ready.status_code, not_ready.json()["ready"]) == (503, False)
    assert not_ready.json()["buckets"]["scalping"] == {"in_use": version, "refused": None}
    assert "no champion in" in not_ready.json()["buckets"]["short"]["refused"]
    champion(tmp_path, "short")
    (tmp_path / paths.CHAMPION / "scalping/head.onnx").unlink()
    service.shelf.refresh()
    ready, told = talk(app, ("GET", "/ready"), ("GET", "/version"))
    assert ready.status_code == 200
    assert ready.json()["buckets"]["scalping"]["in_use"] == version
    assert "head.onnx is missing" in ready.json()["buckets"]["scalping"]["refused"]
    record = told.json()["bundles"]["scalping"]
    assert (record["model_version"], record["registered_version"], record["edge"]) == (version, 1, "none")


def test_the_schema_names_every_field_of_a_decision_and_none_is_left_open(app: FastAPI) -> None:
    openapi = app.openapi()
    schemas = openapi["components"]["schemas"]
    assert set(schemas["DecisionAnswer"]["required"]) == {field.name for field in fields(Decision)} | {"edge"}
    assert set(schemas["ReasoningAnswer"]["required"]) == {field.name for field in fields(Reasoning)}
    for name in ("DecisionAnswer", "ReasoningAnswer", "BatchAnswer", "AppendAnswer", "ReadyAnswer", "VersionAnswer"):
        assert schemas[name]["additionalProperties"] is False
    assert schemas["DecisionAnswer"]["properties"]["action"]["enum"] == [action.name for action in Action]
    assert "HTTPValidationError" not in schemas
    assert set(openapi["paths"]) == ENDPOINTS


def test_an_answer_that_the_schema_does_not_tell_of_is_found_out(app: FastAPI) -> None:
    (good,) = talk(app, ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    for wrong in ({"action": "SHORT"}, {"more": 1}, {"forecasts": [{"mean": 0.1}]}, {"close_ts_ns": 1.5}):
        response = httpx.Response(200, json=good.json() | wrong)
        with pytest.raises(jsonschema.ValidationError):
            expect_as_told(app.openapi(), "POST", DECIDE, response)
    with pytest.raises(KeyError, match="409"):
        expect_as_told(app.openapi(), "POST", DECIDE, httpx.Response(409, json={"error": "?"}))


def test_metrics_count_requests_decisions_and_swaps(root: Path, service: Service) -> None:
    app = app_of(service)
    *_, metrics = talk(
        app,
        ("POST", APPEND, BARS),
        ("POST", DECIDE, {"bucket": "scalping"}),
        ("POST", DECIDE, {"bucket": "tiny"}),
        ("GET", "/nowhere"),
        ("GET", "/metrics"),
    )
    assert metrics.headers["content-type"].startswith("text/plain")
    version = load_bundle(root / paths.CHAMPION / "scalping").version
    for line in (
        'btcai_requests_total{endpoint="/v1/decide",status="200"} 1.0',
        'btcai_requests_total{endpoint="/v1/decide",status="422"} 1.0',
        'btcai_requests_total{endpoint="other",status="404"} 1.0',
        'btcai_request_seconds_count{endpoint="/v1/decide"} 2.0',
        f'btcai_bundle_in_use{{bucket="scalping",edge="none",model_version="{version}"}} 1.0',
        "btcai_market_last_close_seconds{",
        "process_resident_memory_bytes",
    ):
        assert line in metrics.text
    (decisions,) = [line for line in metrics.text.splitlines() if line.startswith("btcai_decisions_total{")]
    assert f'model_version="{version}"' in decisions
    assert decisions.endswith(" 1.0")


def test_a_proven_edge_is_said_with_the_decision(tmp_path: Path) -> None:
    made = hand_made_bundle(tmp_path / "made")
    place_champion(made, standing("scalping", edge="proven"), tmp_path / paths.CHAMPION / "scalping")
    service = new_service(tmp_path, "scalping")
    (response,) = talk(app_of(service), ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    assert response.json()["edge"] == "proven"


def test_a_forecast_that_is_no_number_is_null(tmp_path: Path) -> None:
    made = hand_made_bundle(tmp_path / "made", std=float("nan"))
    place_champion(made, standing("scalping"), tmp_path / paths.CHAMPION / "scalping")
    (response,) = talk(app_of(new_service(tmp_path, "scalping")), ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    assert response.json()["forecasts"][0]["std"] is None
    assert response.json()["note"] == "a lot is not allowed: the forecast is not a finite number"


def test_with_a_token_only_health_is_answered_without_it(service: Service) -> None:
    app = app_of(service, token="a" * 16)
    without = talk(app, ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"))
    assert [response.status_code for response in without] == [200, 401, 401]
    good, wrong = b"Bearer " + b"a" * 16, (b"Bearer " + b"b" * 16, b"a" * 16, b"Bearer \xe9")
    for bearer, status in ((good, 200), *((one, 401) for one in wrong)):
        (response,) = talk(app, ("GET", "/version"), headers={"Authorization": bearer})
        assert response.status_code == status
        assert "a" * 16 not in response.text
    (refused,) = talk(app, ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "add Authorization: Bearer TOKEN" in refused.json()["error"]


def test_a_body_beyond_the_limit_is_refused_whatever_its_headers_say(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_BODY_BYTES", 1_000)
    batch = {"questions": [{"bucket": "scalping"}], **BARS}
    small, large, many = talk(
        app_of(service), ("POST", DECIDE, {"bucket": "scalping"}), ("POST", DECIDE, BARS), ("POST", BATCH, batch)
    )
    assert (small.status_code, large.status_code, many.status_code) == (404, 413, 200)
    assert "at most 1,000 bytes" in large.json()["error"]

    async def chunks() -> Any:
        for _ in range(50):
            yield b" " * 100

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app_of(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(DECIDE, content=chunks())

    assert asyncio.run(ask()).status_code == 413


def test_a_page_of_another_name_cannot_ask(service: Service) -> None:
    (response,) = talk(app_of(service), ("GET", "/version"), headers={"Host": "evil.example"})
    assert response.status_code == 400


def test_beyond_what_may_wait_requests_are_turned_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MAX_WAITING", 0)
    (response,) = talk(app_of(service), ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "ask again in a second" in response.json()["error"]


def test_a_failure_of_ours_is_told_to_the_log_and_not_to_the_asker(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(service, "decide", fails)
    (response,) = talk(app_of(service), ("POST", DECIDE, {"bucket": "scalping", **BARS}))
    assert (response.status_code, response.json()) == (500, {"error": "the server failed; its log says why"})
    assert "secret of the house" in caplog.text


@pytest.mark.parametrize(
    ("host", "remote", "token", "found"),
    [
        ("127.0.0.1", False, None, None),
        ("::1", False, "", None),
        ("localhost", False, "t" * 16, "t" * 16),
        ("0.0.0.0", True, "t" * 16, "t" * 16),
    ],
)
def test_the_loopback_needs_no_token_and_heeds_one(
    host: str, remote: bool, token: str | None, found: str | None
) -> None:
    assert server.checked_token(host, remote, token) == found


@pytest.mark.parametrize(
    ("host", "remote", "token", "message"),
    [
        ("0.0.0.0", False, "t" * 16, "the host must be of the loopback, was 0.0.0.0; .* say --remote and set"),
        ("192.168.1.2", True, None, "needs a token, SERVE_TOKEN is not set; set BTCAI_SERVE_TOKEN, or"),
        ("127.0.0.1", True, None, "needs a token, SERVE_TOKEN is not set"),  # Host is not checked, behind a proxy
        ("127.0.0.1", False, "tökentökentöken-", "must be of visible ASCII characters"),
        ("127.0.0.1", False, "a token of blanks", "must be of visible ASCII characters"),
        ("my.host", False, None, "the host must be of the loopback, was my.host"),
        ("127.0.0.1", False, "short", "must have at least 16 characters, has 5"),
    ],
)
def test_another_host_needs_both_the_word_and_the_token(
    host: str, remote: bool, token: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        server.checked_token(host, remote, token)


def test_the_token_is_found_in_the_keyring_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run() looks the token up before it listens: one from a keyring that is too short is refused by its length."""
    monkeypatch.delenv("BTCAI_SERVE_TOKEN", raising=False)
    held = {("btcai", "SERVE_TOKEN"): "6chars"}
    monkeypatch.setattr("keyring.get_password", lambda *asked: held[asked])
    with pytest.raises(ConfigError, match="SERVE_TOKEN must have at least 16 characters, has 6"):
        server.run(tmp_path)


def test_as_many_requests_are_answered_at_a_time_as_the_container_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "machine", lambda: Machine(cores=3, memory_bytes=10**9))
    workers = app_module.Workers()
    assert workers._pool._max_workers == 3
    workers.stop()


def test_a_btcai_that_is_not_installed_says_so(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(service_module, "version", missing)
    (told,) = talk(app, ("GET", "/version"))
    assert (told.status_code, told.json()["btcai"]) == (200, "unknown: not installed")


def test_a_port_that_is_taken_is_named() -> None:
    with server._listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"able to listen on 127.0.0.1:{port} .*; choose another --port"):
            server._listening("127.0.0.1", port)
