"""Bodies: how much of one is read, what is wrong with it said shortly, and which bars a market takes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from export_fakes import market
from pydantic import ValidationError
from serving_fakes import app_of, champion, new_service, raw_rows, talk

from btcai.serving.requests import AppendRequest, BatchRequest
from btcai.serving.service import Service

STOP = 9_000
DECIDE, APPEND = "/v1/decide", "/v1/bars"
BARS = {"bars": raw_rows(STOP, 2_400)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    champion(root, "scalping")
    return root


@pytest.fixture
def service(root: Path) -> Service:
    return new_service(root, "scalping")


def test_of_a_body_for_health_nothing_is_read_whoever_asks(service: Service) -> None:
    """Without a token it would be what an endless body fills."""
    sent: list[dict[str, Any]] = []
    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"99999999")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/health",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
    }

    async def receive() -> dict[str, Any]:
        pytest.fail("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app_of(service, token="a" * 16)(scope, receive, send))
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"bars": [[]] * 20_000}, 6),  # six columns of the first row
        ({"bars": [[1, 1, 1, 1, 1, "x"]] * 20_000}, 1),
        ({f"key{k}": 1 for k in range(100_000)}, 1),
    ],
)
def test_of_a_body_that_is_wrong_everywhere_the_first_error_alone_is_made(body: Any, most: int) -> None:
    """Making 120,000 of them kept every other request waiting for a second."""
    with pytest.raises(ValidationError) as raised:
        AppendRequest.model_validate(body)
    assert raised.value.error_count() <= most


def test_a_batch_that_is_wrong_everywhere_is_refused_with_the_first_error_alone() -> None:
    with pytest.raises(ValidationError) as raised:
        BatchRequest.model_validate({"questions": [{f"key{k}": 1 for k in range(3)}] * 4_096})
    assert raised.value.error_count() == 1


def test_a_message_is_short_however_long_the_body(service: Service) -> None:
    unknown = {f"{k:03d}{'x' * 100}": 1 for k in range(1_000)}
    asked = [{"account": unknown}, {"account": {"cash_usdt": 1.0, "halt": "x" * 100_000}}, {"x" * 100_000: 1}]
    for response in talk(app_of(service), *[("POST", DECIDE, {"bucket": "scalping", **BARS, **one}) for one in asked]):
        assert response.status_code == 422
        assert len(response.text) < 500


def test_a_gap_among_the_bars_is_a_conflict_as_one_before_them_is(service: Service) -> None:
    """Bars 9000, 9001 and 9004 of a market at 8999: two are missing, the first of them 9002."""
    holed = {"bars": raw_rows(STOP + 2, 2) + raw_rows(STOP + 5, 1)}
    began, refused, unchanged, allowed, decided = talk(
        app_of(service),
        ("POST", APPEND, {"bars": raw_rows(STOP, 2_300)}),
        ("POST", APPEND, holed),
        ("POST", APPEND, {"bars": raw_rows(STOP + 1, 1)}),
        ("POST", APPEND, {"bars": raw_rows(STOP + 2, 1) + raw_rows(STOP + 5, 1), "allow_gap": True}),
        ("POST", DECIDE, {"bucket": "scalping"}),
    )
    assert [one.status_code for one in (began, refused, unchanged, allowed, decided)] == [200, 409, 200, 200, 200]
    close = str(market().bars.close_ts_ns[STOP + 2].astype("datetime64[ns]").astype("datetime64[s]"))
    assert f"2 of the given ones are missing, the first one would have closed at {close}Z" in refused.json()["error"]
    assert [one.json()["bars_kept"] for one in (began, unchanged, allowed)] == [2_300, 2_301, 2_305]
    (alone,) = talk(
        app_of(service), ("POST", DECIDE, {"bucket": "scalping", "bars": raw_rows(STOP, 2_300) + holed["bars"]})
    )
    assert decided.json() == alone.json() | {"intervals": "adaptive"}
