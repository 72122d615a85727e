"""A server under load while champions change under it: is anything lost, late or wrong?"""

import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.line import Goal, Line
from bench.serve_http import accounts, copied, rows, serving, told
from btcai import paths
from btcai.errors import ArtifactError
from btcai.features.pipeline import rows_of
from btcai.inference.bundle import GRAPHS, MANIFEST, PolicyBundle, file_sha256, load_bundle, write_manifest
from btcai.inference.decision import decide
from btcai.records.champions import Standing, place_champion
from btcai.schema import BUCKETS, Bars, Forecast
from btcai.serving.live import KEPT_BARS

LEAST_REFUSED = 4
SEEN_WITHIN_S, LOOK_S = 60.0, 0.1
"""The server looks at its folders once in a while, and between its answers."""
NOTHING_LOST = (Goal("value", "<=", 0.0),)


@dataclass(frozen=True)
class Soak:
    """How long, and how often things change."""

    seconds: float = 600.0
    askers: int = 3
    batch: int = 16
    bar_s: float = 2.0
    swap_s: float = 1.5
    corrupt_every: int = 5
    """Champions; never one bucket's twice running, which the server would say once."""


def soak_lines(root: Path, bars: Bars, soak: Soak) -> Iterator[Line]:
    """Champions, each in turn with another version of it, under load; what was lost, late or wrong."""
    with copied(root) as project:
        pairs = {}
        for bucket in BUCKETS:
            kept = project / "versions" / bucket
            shutil.copytree(project / paths.CHAMPION / bucket, kept / "one")
            pairs[bucket] = (kept / "one", varied(kept / "one", kept / "other"))
        found = soaked(project, bars, pairs, soak)
    yield Line(
        name=f"requests lost, refused or answered wrongly in {found.seconds:,.0f} s with {found.swapped} swaps",
        value=float(len(found.faults)),
        unit="requests",
        goals=NOTHING_LOST,
        note=found.faults[0] if found.faults else None,
        more=found.facts(),
    )


@dataclass
class Soaked:
    """What came of a soak."""

    seconds: float = 0.0
    requests: int = 0
    decisions: int = 0
    bars: int = 0
    checked: int = 0
    """Different answers, each held against the version's own decision on the same bars and account."""
    swapped: int = 0
    refused: int = 0
    rss_first_mb: float = 0.0
    rss_last_mb: float = 0.0
    faults: list[str] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    answers: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    """By bucket, version, close_ts_ns and number of the account."""
    by_version: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, float | int]:
        """For a bench line."""
        median, high = (float(np.percentile(self.took_ms, percentile)) for percentile in (50, 99))
        return {
            "requests": self.requests, "decisions": self.decisions, "bars": self.bars, "checked": self.checked,
            "refused": self.refused, "versions": len(self.by_version), "median_ms": median, "p99_ms": high,
            "rss_first_mb": self.rss_first_mb, "rss_last_mb": self.rss_last_mb,
        }  # fmt: skip


def soaked(project: Path, bars: Bars, pairs: Mapping[str, tuple[Path, Path]], soak: Soak) -> Soaked:
    """Serve `project` and ask it without pause, while bars come, the two versions of each bucket take turns as its
    champion and a broken one is placed between them; then hold every answer against what its version decides."""
    start_row = len(bars) - int(soak.seconds / soak.bar_s) - 10
    described = accounts(float(bars.close[:start_row][bars.present[:start_row]][-1]))
    for bucket, (one, _) in pairs.items():
        place_champion(one, _standing(one, 1), project / paths.CHAMPION / bucket)
    found, lock, over = Soaked(), threading.Lock(), threading.Event()
    with serving(project, tuple(pairs)) as running, httpx.Client(base_url=running.address, timeout=30) as client:
        kept = rows(rows_of(bars, slice(start_row - KEPT_BARS, start_row)))
        told(client.post("/v1/bars", json={"bars": kept}))
        actors = [threading.Thread(target=_append, args=(running.address, bars, start_row, soak, found, lock, over))]
        actors += [
            threading.Thread(target=_ask, args=(running.address, k, tuple(pairs), described, soak, found, lock, over))
            for k in range(soak.askers)
        ]
        begin = time.monotonic()
        for actor in actors:
            actor.start()
        try:
            time.sleep(min(5.0, soak.seconds / 4))
            found.rss_first_mb = _rss_mb(client)
            _swap(project, pairs, soak, begin, client, found, lock)
        finally:
            over.set()
            for actor in actors:
                actor.join()
        found.seconds = time.monotonic() - begin
        found.swapped, found.refused = (_events(client, name) for name in ("swapped", "refused"))
        found.rss_last_mb = _rss_mb(client)
    _check(found, bars, pairs, described)
    return found


def _ask(
    address: str,
    seed: int,
    buckets: tuple[str, ...],
    described: tuple[dict[str, Any] | None, ...],
    soak: Soak,
    found: Soaked,
    lock: threading.Lock,
    over: threading.Event,
) -> None:
    """One decision, or a batch, again and again."""
    draw = random.Random(seed)
    with httpx.Client(base_url=address, timeout=30) as client:
        while not over.is_set():
            n = 1 if draw.random() < 0.7 else soak.batch
            asked = [(draw.choice(buckets), draw.randrange(len(described))) for _ in range(n)]
            questions = [{"bucket": bucket, "account": described[k]} for bucket, k in asked]
            start = time.perf_counter()
            try:
                if n == 1:
                    explained = {"explain": True} if draw.random() < 0.05 else {}
                    answers = [told(client.post("/v1/decide", json=questions[0] | explained))]
                else:
                    answers = told(client.post("/v1/decide/batch", json={"questions": questions}))["answers"]
                assert len(answers) == n, f"{n} questions, {len(answers)} answers"
            except (httpx.HTTPError, AssertionError, ValueError) as error:
                with lock:
                    found.faults.append(f"{type(error).__name__}: {error}")
                continue
            took_ms = 1e3 * (time.perf_counter() - start)
            with lock:
                found.requests, found.decisions = found.requests + 1, found.decisions + n
                found.took_ms.append(took_ms)
                for question, answer in zip(asked, answers, strict=True):
                    _keep(found, *question, answer)


def _keep(found: Soaked, bucket: str, account: int, answer: dict[str, Any]) -> None:
    """Note an answer; one that differs from an earlier one to the same question is a fault."""
    answer.pop("reasoning", None)
    if "error" in answer:
        found.faults.append(f"{bucket}: {answer['error']}")
        return
    key = (bucket, str(answer["model_version"]), int(answer["close_ts_ns"]), account)
    text = json.dumps(answer, sort_keys=True)
    found.by_version[f"{bucket} {key[1]}"] += 1
    if found.answers.setdefault(key, text) != text:
        found.faults.append(f"{key}: two answers to one question: {found.answers[key]} and {text}")


def _append(
    address: str, bars: Bars, row: int, soak: Soak, found: Soaked, lock: threading.Lock, over: threading.Event
) -> None:
    """A bar every bar_s."""
    with httpx.Client(base_url=address, timeout=30) as client:
        while not over.wait(soak.bar_s) and row < len(bars):
            if bars.present[row]:
                body = {"bars": rows(rows_of(bars, slice(row, row + 1))), "allow_gap": True}
                try:
                    told(client.post("/v1/bars", json=body))
                    found.bars += 1
                except (httpx.HTTPError, AssertionError) as error:
                    with lock:
                        found.faults.append(f"{type(error).__name__}: {error}")
            row += 1


def _swap(
    project: Path,
    pairs: Mapping[str, tuple[Path, Path]],
    soak: Soak,
    begin: float,
    client: httpx.Client,
    found: Soaked,
    lock: threading.Lock,
) -> None:
    """Each bucket in turn gets its other version; now and then one with half an encoder, which must be refused. The
    server sees each of them, and LEAST_REFUSED broken ones are tried however long that takes."""
    waiting = {bucket: cycle(reversed(versions)) for bucket, versions in pairs.items()}
    buckets = list(pairs)
    for turn in count():
        if time.monotonic() - begin > soak.seconds and turn >= LEAST_REFUSED * soak.corrupt_every:
            return
        bucket, seen = buckets[turn % len(buckets)], _seen(client)
        place = project / paths.CHAMPION / bucket
        if turn % soak.corrupt_every == soak.corrupt_every - 1:
            good = pairs[bucket][0]
            with tempfile.TemporaryDirectory() as folder:
                broken = Path(folder) / "broken"
                shutil.copytree(good, broken)
                os.truncate(broken / GRAPHS[0], (broken / GRAPHS[0]).stat().st_size // 2)
                place_champion(broken, _standing(good, turn + 2), place)
        else:
            good = next(waiting[bucket])
            place_champion(good, _standing(good, turn + 2), place)
        time.sleep(soak.swap_s)
        for _ in range(int(SEEN_WITHIN_S / LOOK_S)):
            if _seen(client) > seen:
                break
            time.sleep(LOOK_S)
        else:
            with lock:
                found.faults.append(f"{bucket}: what was placed in turn {turn} was not seen in {SEEN_WITHIN_S} s")


def _check(
    found: Soaked,
    bars: Bars,
    pairs: Mapping[str, tuple[Path, Path]],
    described: tuple[dict[str, Any] | None, ...],
) -> None:
    """Every answer is of one of its bucket's two versions and is what that version decides there, but for its
    quantiles, which followed the outcomes of all decisions that were asked for before."""
    bundles: dict[tuple[str, str], PolicyBundle] = {}
    for bucket, folders in pairs.items():
        for folder in folders:
            bundle = load_bundle(folder)
            bundles[bucket, bundle.version] = bundle
    for (bucket, version, close_ts_ns, account), text in found.answers.items():
        if (bundle := bundles.get((bucket, version))) is None:  # type: ignore[assignment]
            found.faults.append(f"{bucket}: answered by {version}, which was never its champion")
            continue
        stop = int(np.searchsorted(bars.close_ts_ns, close_ts_ns)) + 1
        decision = decide(bundle, rows_of(bars, slice(stop - KEPT_BARS, stop)), described[account])
        said = json.loads(text)
        if said["intervals"] == "adaptive":
            decision = replace(decision, intervals="adaptive", forecasts=_followed(decision.forecasts, said))
        wanted = json.loads(json.dumps({**vars(decision), "forecasts": [vars(one) for one in decision.forecasts]}))
        wanted |= {"action": decision.action.name, "edge": said["edge"]}
        found.checked += 1
        if said != wanted:
            found.faults.append(f"{bucket} {version} at {close_ts_ns}: said {said}, decides {wanted}")


def _followed(forecasts: tuple[Forecast, ...], said: dict[str, Any]) -> tuple[Forecast, ...]:
    """With the quantiles that were said, where they rise."""
    quantiles = [tuple(one["quantiles"]) for one in said["forecasts"]]
    return tuple(
        replace(one, quantiles=levels) if list(levels) == sorted(levels) else one
        for one, levels in zip(forecasts, quantiles, strict=True)
    )


def varied(folder: Path, out: Path, seed: int = 0) -> Path:
    """Another version of a bundle: the weights of its head with a tenth of their size in noise; ArtifactError without
    any."""
    import onnx

    shutil.copytree(folder, out)
    head = onnx.load(out / "head.onnx")
    rng = np.random.default_rng(seed)
    matrices = [one for one in head.graph.initializer if len(one.dims) == 2]
    if not matrices:
        raise ArtifactError(f"{folder / 'head.onnx'} has no weights to vary; remake it with: btcai run")
    for weights in matrices:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32:
            noise = 0.1 * np.abs(values).mean() * rng.standard_normal(values.shape)
            weights.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(np.float32), weights.name))
    onnx.save(head, out / "head.onnx")
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    manifest["sha256"]["head.onnx"] = file_sha256(out / "head.onnx")
    write_manifest(out, manifest)
    return out


def _standing(folder: Path, version: int) -> Standing:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Standing(
        bucket=manifest["bucket"],
        version=version,
        data_version=manifest["versions"]["data"],
        code_version="",
        judged_on="",
        score=0.0,
        edge="none",
        run_id="",
    )


def _metric(client: httpx.Client, *parts: str) -> float:
    text = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in text if line[0] != "#" and all(part in line for part in parts)
    )


def _seen(client: httpx.Client) -> int:
    """How many champions were placed under the server so far, as it says."""
    return _events(client, "swapped") + _events(client, "refused")


def _events(client: httpx.Client, event: str) -> int:
    return int(_metric(client, "btcai_bundle_events_total", f'event="{event}"'))


def _rss_mb(client: httpx.Client) -> float:
    return _metric(client, "process_resident_memory_bytes") / 1e6
