"""Warm starts that nothing names any more: no params.yaml of this checkout, a branch, a tag or a run that stays."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from btcai import paths
from btcai.errors import ArtifactError
from btcai.files import bytes_of
from btcai.records import lineage
from btcai.training import starts

PARAMS = str(paths.PARAMS)


def collect(root: Path, names: Collection[str], *, dry: bool) -> tuple[tuple[Path, int], ...]:
    """Remove those that neither `names` nor this checkout's params.yaml names, or only say which; with their bytes."""
    folder = root / paths.STARTS
    if not folder.is_dir():
        return ()
    with starts.alone(folder):
        present = named([{PARAMS: (root / paths.PARAMS).read_text(encoding="utf-8")}])
        gone = starts.unnamed(folder, {*names, *present})
        sized = tuple((path, bytes_of(path)) for path in gone)
        if not dry:
            starts.drop(gone)
    return sized


def named(pins: Iterable[Mapping[str, str]]) -> set[str]:
    """The starts that these params.yaml are of; ArtifactError where one cannot be read: it may name any."""
    found = set()
    for text in filter(None, (one.get(PARAMS) for one in pins)):
        try:
            found.add(str((yaml.safe_load(text).get("warm_start") or {}).get("name", starts.NONE)))
        except (yaml.YAMLError, AttributeError) as error:
            raise ArtifactError(
                f"every {PARAMS} must be readable to tell which warm starts are needed, one was not "
                f"({' '.join(str(error).split())}); mend it, then run it again"
            ) from error
    return found


def committed(root: Path) -> Iterator[dict[str, str]]:
    """params.yaml of every branch and tag."""
    commits = lineage.git(root, "for-each-ref", "--format=%(objectname)") or ""
    for commit in dict.fromkeys(commits.split()):
        if (text := lineage.git(root, "show", f"{commit}:./{PARAMS}")) is not None:
            yield {PARAMS: text}
