"""Great Expectations' own pages of a validation, made to be read without network and to be the same each time.

Its site loads styles, scripts, icons and a logo from seven servers, draws its index with such a script, and holds the
time of the run and identifiers drawn at random. Here the pages keep its words and tables and lose all of that.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from btcai.errors import DataError

NO_TIME = "19700101T000000.000000Z"
"""In place of every time at which something ran."""

_TIME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_IDENTIFIER = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FROM_ELSEWHERE = re.compile(
    r"<(script|style|footer)\b.*?</\1\s*>|<(?:link|img)\b[^>]*>|<label\b.*?</label>", re.DOTALL | re.IGNORECASE
)

STYLE = """
:root { color-scheme: light dark; --line: #8885; --good: #16794a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --good: #5bd397; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
.card.mb-3, .navbar-brand, thead[hidden] { display: none; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
ol, .ge-navigation-sidebar-content { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 0 1rem; }
.alert { border-bottom: 2px solid var(--line); margin-top: 1.5rem; }
h5 { font-size: 1.1rem; margin: 0; }
.badge { border: 1px solid var(--line); border-radius: .3rem; padding: 0 .3rem; }
.text-success { color: var(--good); }
.text-danger { color: var(--bad); }
.fa-check-circle::before { content: "\\2714"; }
.fa-times::before { content: "\\2718"; }
"""

_NOTE = (
    "<footer><p>Rendered by Great Expectations. Times are set to 1970, so that the same bars give the same pages."
    "</p></footer>"
)


def write_data_docs(context: Any, folder: Path) -> None:
    """The pages of every suite that Great Expectations' `context` evaluated, and an index with verdicts, into `folder`.

    Every run's time must be 1970-01-01, for it names a folder. DataError where a suite could not be rendered.
    """
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    site = {"class_name": "SiteBuilder", "store_backend": backend, "site_section_builders": {"profiling": "None"}}
    context.add_data_docs_site(site_name="bars", site_config={**site, "show_how_to_buttons": False})
    context.build_data_docs(site_names=["bars"], build_index=False)
    shutil.rmtree(folder / "static")  # logos, and pictures that teach how to use it
    store, items = context.validation_results_store, []
    for suite, success in sorted((found.suite_name, found.success) for found in map(store.get, store.list_keys())):
        pages = [*folder.glob(f"validations/{suite}/**/*.html"), folder / f"expectations/{suite}.html"]
        if len(pages) != 2 or not all(page.is_file() and page.stat().st_size for page in pages):
            raise DataError(f"Great Expectations rendered no pages of the rules of {suite}; please report it")
        for page in pages:
            page.write_text(_plain(page.read_text(encoding="utf-8")), encoding="utf-8")
        result, rules = (page.relative_to(folder).as_posix() for page in pages)
        tone, word = ("text-success", "passed") if success else ("text-danger", "failed")
        items.append(
            f'<li><a href="{result}">{suite}</a>: <span class="{tone}">{word}</span> '
            f'(<a href="{rules}">the rules alone</a>)</li>'
        )
    index = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="UTF-8">\n<title>Data Docs</title>\n</head>\n<body>\n'
        '<h1>Data Docs</h1>\n<p><a href="../index.html">Back to the report</a></p>\n<ul>\n'
        + "\n".join(items)
        + "\n</ul>\n</body>\n</html>\n"
    )
    (folder / "index.html").write_text(_plain(index), encoding="utf-8")


def _plain(page: str) -> str:
    """A page without what comes from elsewhere or differs each time, in a style of its own."""
    page = _FROM_ELSEWHERE.sub("", page)
    page = _IDENTIFIER.sub("", _TIME.sub(NO_TIME, page))
    page = page.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1).replace("</body>", f"{_NOTE}\n</body>", 1)
    return re.sub(r"\n\s*\n+", "\n", page)
