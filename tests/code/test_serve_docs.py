"""docs/serve.md: its code, run as it stands against a server, decides as `btcai decide` does."""

import re
from pathlib import Path

import pytest
from export_fakes import frame, market
from serving_fakes import champion, cut, plain

from bench.serve_http import serving
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide

PAGE = (Path(__file__).parents[2] / "docs/serve.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_of_the_page_decides_as_the_bundle_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, stop, n = champion(tmp_path, "scalping"), 9_000, 144 + WARMUP_BARS
    bars = tmp_path / "data/simulated/2025-03.parquet"
    bars.parent.mkdir(parents=True)
    frame().iloc[stop - n : stop].to_parquet(bars, index=False)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert 'server = "http://127.0.0.1:8710"' in code
    found: dict[str, object] = {}
    with serving(tmp_path, ("scalping",)) as running:
        exec(code.replace("http://127.0.0.1:8710", running.address), found)
    wanted = decide(load_bundle(made), cut(market().bars, stop, n), {"cash_usdt": 5_000.0})
    assert found["decision"] == plain(wanted) | {"intervals": "adaptive"}
