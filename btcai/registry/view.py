"""What `btcai registry` prints: one row a bucket, and a champion with everything that leads back to it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from btcai import paths
from btcai.records import lineage, promotions
from btcai.registry import place
from btcai.registry.garbage import Plan
from btcai.registry.tracing import CHAMPION, Entry, Shelf, Trace, Use
from btcai.registry.verification import Check

UNKNOWN = "-"
SAME, OTHER, ABSENT = Text("same here", "green"), Text("differs here", "yellow"), Text("not here", "yellow")


def shelves_view(shelves: Sequence[Shelf]) -> RenderableType:
    """One row a bucket: its champion, and the versions that challenge it or came before."""
    heads = ("bucket", "champion", "challenger", "previous", "score", "edge", "data", "registered")
    table = _table("Registered models", *heads)
    for shelf in shelves:
        champion, *others = (_version(shelf.aliased.get(alias)) for alias in (CHAMPION, "challenger", "previous"))
        cells = _champion_cells(shelf.aliased.get(CHAMPION))
        table.add_row(shelf.bucket, f"{champion} of {shelf.versions}", *others, *cells)
    return Group(table, Text("one in full: btcai registry show BUCKET", "dim"))


def uses_view(uses: Sequence[Use], what: str) -> RenderableType:
    """One row a version that was made from `what`."""
    if not uses:
        return Text(f"no registered version was made from {what}")
    table = _table(f"Made from {what}", "model", "version", "aliases", "used as", "score", "edge", "registered")
    for use in uses:
        entry = use.entry
        score, edge, _, registered = _champion_cells(entry)
        aliases = ", ".join(entry.aliases) or UNKNOWN
        table.add_row(entry.model, str(entry.version), aliases, ", ".join(use.used_as), score, edge, registered)
    return table


def history_view(entries: Sequence[promotions.Entry]) -> RenderableType:
    """Every change of champion on record, the newest last."""
    if not entries:
        return Text("no change of champion is on record")
    table = _table("Changes of champion", "UTC", "bucket", "change", "from", "to", "by", "because", "outcome")
    newest = {entry.change.bucket: entry for entry in entries}
    for entry in entries:
        change = entry.change
        began = f"{datetime.fromtimestamp(change.began_unix_s, UTC):%Y-%m-%d %H:%M:%S}"
        sides = (str(seats.champion or UNKNOWN) for seats in (change.before, change.after))
        open_now = "interrupted: btcai registry verify --mend"  # an older one, whose line is damaged, is past mending
        outcome = entry.outcome or Text(open_now if entry is newest[change.bucket] else "not on record", "yellow")
        table.add_row(began, change.bucket, change.kind, *sides, change.who, change.because, outcome)
    return table


def checks_view(checks: Sequence[Check]) -> RenderableType:
    """One row a check, what fails in red."""
    if not checks:
        return Text("nothing is registered yet; make it with: btcai run")
    table = _table("Champions", "bucket", "what", "", "seen")
    for check in checks:
        table.add_row(
            check.bucket, check.what, Text("ok", "green") if check.ok else Text("wrong", "bold red"), check.said
        )
    return table


def garbage_view(plan: Plan, *, dry: bool) -> RenderableType:
    """What goes and what stays, in bytes."""
    head = "Would go" if dry else "Gone"
    table = _table(head, "run", "began, UTC", "versions", "MB")
    for one in plan.drop:
        began = f"{datetime.fromtimestamp(one.began_unix_ms / 1000, UTC):%Y-%m-%d %H:%M}"
        versions = ", ".join(f"{name} {number}" for name, number in one.versions) or UNKNOWN
        table.add_row(one.parent or one.input_hash[:12], began, versions, _megabytes(one.bytes))
    cached = sum(size for _, size in plan.cache)
    needed = sum(one.needed for one in plan.stay)
    started = sum(size for _, size in plan.starts)
    total = _megabytes(cached + started + sum(one.bytes for one in plan.drop))
    lines = [f"{path.name}: a warm start that nothing names, {_megabytes(size)} MB" for path, size in plan.starts]
    lines += [
        f"{len(plan.drop)} runs and {len(plan.cache)} files of DVC's cache ({_megabytes(cached)} MB): {total} MB",
        f"{len(plan.stay)} runs stay, {needed} of them needed by an alias or a pin",
    ]
    text = Text("\n".join(lines))
    return Group(table, text) if plan.drop else text


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _version(entry: Entry | None) -> str:
    return str(entry.version) if entry else UNKNOWN


def _champion_cells(entry: Entry | None) -> tuple[str, ...]:
    if entry is None:
        return (UNKNOWN,) * 4
    data = f"{entry.tags.get('data_market', '')} {entry.tags['data_version'][:8]}".strip()
    return f"{float(entry.tags['score']):.4f}", entry.tags["edge"], data, f"{entry.registered:%Y-%m-%d}"


def trace_view(trace: Trace, *, all_params: bool, pages: str = "") -> RenderableType:
    """A champion: what it is, what made it, whether the same is here, and the commands that make it again.

    pages: where MLflow's are (services.pages).
    """
    parts = (_identity(trace, pages), _made_from(trace), _files(trace), _params(trace, all_params))
    rebuild = "\n".join(_rebuild(trace))
    return Group(*parts, Text("Make it again", "italic"), Text(rebuild))


def _identity(trace: Trace, pages: str) -> Table:
    entry, facts = trace.entry, _pairs()
    facts.add_row("model", Text(f"{entry.model} version {entry.version} ({', '.join(entry.aliases)})", "bold"))
    facts.add_row("decides as", entry.tags.get("model_version", UNKNOWN))
    facts.add_row("edge", entry.tags["edge"])
    facts.add_row("score", f"{float(entry.tags['score']):.4f}, walk-forward, net of costs")
    facts.add_row("registered", f"{entry.registered:%Y-%m-%d %H:%M} UTC")
    run = f"{pages}/#/experiments/{trace.experiment_id}/runs/{entry.run_id}"
    facts.add_row("MLflow", f"run {entry.run_id} of {trace.parent_run_id}")
    facts.add_row("its pages", f"{run}\n{pages}/#/models/{entry.model}/versions/{entry.version}")
    return facts


def _made_from(trace: Trace) -> Table:
    tags, table = trace.entry.tags, _table("Made from", "what", "on record", "this checkout")
    span = f"{tags.get('data_first', UNKNOWN)} .. {tags.get('data_last', UNKNOWN)}"
    table.add_row("market", tags.get("data_market", UNKNOWN))
    table.add_row("bars", f"{int(tags['data_rows']):,}, {span}" if "data_rows" in tags else UNKNOWN)
    names = {
        "bars, content sha256": "data_version",
        "code, sha256": "code_version",
        "git commit": "git_commit",
        "requirements.lock sha256": "requirements_lock_sha256",
        "market, DVC md5": "market_dvc_md5",
        "data.dvc md5": "data_dvc_md5",
        "its settings, sha256": "params_sha256",
        "Python": "python",
        "libraries": "libraries",
        "platform": "platform",
    }
    for head, name in names.items():
        dirty = " with changes of its own" if name == "git_commit" and tags.get("git_dirty") == "true" else ""
        table.add_row(head, tags.get(name, UNKNOWN) + dirty, _compared(tags.get(name), trace.tags_here.get(name)))
    return table


def _compared(on_record: str | None, here: str | None) -> Text:
    if on_record is None:
        return Text(UNKNOWN)
    return ABSENT if here is None else SAME if here == on_record else OTHER


def _files(trace: Trace) -> Table:
    table = _table("Bundle", "file", "sha256 on record", f"{paths.CHAMPION / trace.entry.bucket}")
    for name in sorted(trace.files.keys() | trace.files_here.keys()):
        on_record, here = trace.files.get(name), trace.files_here.get(name)
        table.add_row(
            name, on_record or "not on record", ABSENT if here is None else SAME if here == on_record else OTHER
        )
    return table


def _params(trace: Trace, all_params: bool) -> RenderableType:
    both = sorted(trace.params.keys() | trace.params_here.keys())
    differ = [name for name in both if trace.params.get(name) != trace.params_here.get(name)]
    if not all_params and not differ:
        return Text(f"Its {len(both)} parameters are those of {paths.PARAMS} (--params lists them)", "italic")
    title = "Parameters" if all_params else "Parameters that differ here (--params lists all)"
    table = _table(title, "parameter", "on record", "here now")
    for name in both if all_params else differ:
        here = trace.params_here.get(name, UNKNOWN)
        table.add_row(name, trace.params.get(name, UNKNOWN), Text(here, "yellow" if name in differ else ""))
    return table


def _rebuild(trace: Trace) -> Iterator[str]:
    """Its commit, its settings and locks, its bars, then everything again."""
    entry, download = trace.entry, ".venv/bin/mlflow artifacts download"
    if commit := entry.tags.get("git_commit"):
        yield f"git checkout {commit}"
    yield f"export MLFLOW_TRACKING_URI={place.shown() if place.server() else f'sqlite:///{paths.MLFLOW_DB}'}"
    if entry.tags.get("git_dirty") == "true":
        yield "# its code was not the commit's: the model has its own copy"
        yield f"{download} -u models:/{entry.model}/{entry.version} -d model"
        yield "cp -r model/code/btcai ."
    yield f"# {', '.join(lineage.KEPT)}"
    yield f"{download} -r {trace.parent_run_id} \\\n  -a lineage -d . && cp lineage/* ."
    yield "# or dvc pull data.dvc, from where the bars were pushed to"
    yield ".venv/bin/dvc checkout data.dvc"
    yield "make setup && .venv/bin/btcai run --force"


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table
