"""A project with champions, requests to it, and the answers that it owes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from export_fakes import frame, loud_bundle
from fastapi import FastAPI

from btcai import paths
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.records.champions import Standing, place_champion
from btcai.schema import RAW_COLUMNS, Bars
from btcai.serving.app import create_app
from btcai.serving.metrics import Metrics
from btcai.serving.service import Service
from btcai.serving.shelf import Shelf
from btcai.summary import decision_json

VERSION_OF_DATA = "d" * 64
HELD = {"cash_usdt": 40_000.0, "lots": [{"btc": 0.5, "entry_price": 25_000.0}]}
HALTED = {"cash_usdt": 40_000.0, "lots": [{"btc": 0.5, "entry_price": 25_000.0}], "cool_down_bars": 5}
WAITING = {"cash_usdt": 90_000.0, "order_pending": "entry", "decisions_since_trade": 40}
ACCOUNTS: tuple[dict[str, Any] | None, ...] = (None, HELD, HALTED, WAITING)


def standing(bucket: str, version: int = 1, **changes: Any) -> Standing:
    known = {"data_version": VERSION_OF_DATA, "code_version": "c", "judged_on": "j", "score": 0.5, "edge": "none"}
    return Standing(**{"bucket": bucket, "version": version, "run_id": "r", **known, **changes})


def champion(root: Path, bucket: str, seed: int = 0, version: int = 1, **changes: Any) -> Path:
    """Place a loud bundle as the bucket's champion; its own folder, which stays."""
    made = loud_bundle(root / "made" / f"{bucket}-{seed}-{version}", bucket, seed=seed, **changes)
    place_champion(made, standing(bucket, version), root / paths.CHAMPION / bucket)
    return made


def new_service(root: Path, *buckets: str) -> Service:
    metrics = Metrics()
    service = Service(Shelf(root, buckets, metrics.bundle_event), metrics)
    service.shelf.refresh()
    return service


def raw_rows(stop: int, n: int) -> list[list[float]]:
    """Bars stop - n .. stop - 1 of the simulated market, as a body holds them; those that are there."""
    part = frame().iloc[stop - n : stop]
    stamps = part["open_time"].dt.tz_convert(None).to_numpy().astype("datetime64[ms]").astype(int).tolist()
    values = part[list(RAW_COLUMNS[1:])].to_numpy().tolist()
    return [[stamp, *row] for stamp, row in zip(stamps, values, strict=True)]


def talk(app: FastAPI, *requests: tuple[Any, ...], headers: dict[str, Any] | None = None) -> list[httpx.Response]:
    """Requests (method, path[, body]) one after the other, in process; a body of bytes goes as it is.

    Each answer must be one of those that the application's own OpenAPI schema names.
    """

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            return [await _ask(client, *one) for one in requests]

    found = asyncio.run(ask())
    for (method, path, *_), response in zip(requests, found, strict=True):
        expect_as_told(app.openapi(), method, path, response)
    return found


def expect_as_told(openapi: dict[str, Any], method: str, path: str, response: httpx.Response) -> None:
    """That /openapi.json names this status and media type, and that the body fits what it says of them; a path or a
    method that it does not know is refused as all else is."""
    operation, status = openapi["paths"].get(path, {}).get(method.lower()), str(response.status_code)
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refused"}}}
    told = operation["responses"][status]["content"] if operation else refusal
    media = response.headers["content-type"].partition(";")[0]
    body = response.json() if media == "application/json" else response.text
    jsonschema.validate(
        body, told[media]["schema"] | {"components": openapi["components"]}, jsonschema.Draft202012Validator
    )


async def _ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return await client.request(method, path, content=content, headers={"content-type": "application/json"})


def app_of(service: Service, **settings: Any) -> FastAPI:
    return create_app(service, **{"hosts": ("127.0.0.1",), **settings})


def plain(decision: Any, edge: str = "none") -> dict[str, Any]:
    """A decision as JSON gives it back."""
    return {**json.loads(decision_json(decision, None)), "edge": edge}


@pytest.fixture(scope="module")
def scalping_fixture(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    """A loud bundle of its own for each module that names it: scalping = scalping_fixture."""
    return load_bundle(loud_bundle(tmp_path_factory.mktemp("scalping")))


def cut(bars: Bars, stop: int, n: int) -> Bars:
    return bars_of(bars, stop - n, stop)


def bars_of(bars: Bars, first: int, stop: int) -> Bars:
    return Bars(**{name: getattr(bars, name)[first:stop] for name in Bars.__dataclass_fields__})
