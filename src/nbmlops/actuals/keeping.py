"""The truths that are kept, and calls beside them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nbmlops import calllog, calls, layout, records
from nbmlops.errors import ArtifactCorrupt
from nbmlops.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_SEGMENT = "*-*.jsonl"


class Actual(msgspec.Struct, frozen=True):
    """The truth about one record of a call."""

    call_id: str
    row: int
    actual: Any
    at: datetime


_DECODER = msgspec.json.Decoder(Actual)


def keep(workspace: Workspace, endpoint: str, digest: str, fresh: list[Actual]) -> None:
    """Write truths of a file of that digest, as the newest of the endpoint."""
    folder = workspace.home.actuals(endpoint)
    before = max((int(path.name[:32], 16) for path in folder.glob(_SEGMENT)), default=0)
    now_ms = int(workspace.now().timestamp() * 1000)
    # Names grow, whatever the clock does: the order of segments says which truth is the newest.
    name = f"{calllog.uuid7(now_ms, secrets.randbits(74), before):032x}-{digest[:16]}.jsonl"
    data = b"".join(records.dump(one) + b"\n" for one in fresh)
    layout.write_file(folder / name, data, mode=0o600)


def kept(workspace: Workspace, endpoint: str) -> Iterator[Actual]:
    """Yield all truths of an endpoint, oldest first.

    Raises
    ------
    ArtifactCorrupt
        When one of its files was changed.
    """
    for path in sorted(workspace.home.actuals(endpoint).glob(_SEGMENT)):
        yield from _read(path)


def _read(path: Path) -> Iterator[Actual]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _DECODER.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ArtifactCorrupt(
                    f"line {number:,} of {path.parent.name}/{path.name} was changed: {error}",
                    f"Restore it from a backup; or remove it (`rm '{path}'`) and take in again the"
                    f" file whose SHA-256 begins with {path.stem.rpartition('-')[2]}.",
                ) from error


def damaged(workspace: Workspace) -> Iterator[ArtifactCorrupt]:
    """Yield what is wrong with files of truths that cannot be read."""
    for path in sorted(workspace.home.root.glob(f"actuals/*/{_SEGMENT}")):
        try:
            for _ in _read(path):
                pass
        except ArtifactCorrupt as error:
            yield error


def standing(workspace: Workspace, endpoint: str) -> dict[tuple[str, int], Actual]:
    """Return the truth that stands about each record, by call id and row.

    An endpoint's, or those of the endpoint to which a deployment belongs.
    """
    name = calls.endpoint_of(workspace, endpoint)
    return {(one.call_id, one.row): one for one in kept(workspace, name)}


def joined(
    workspace: Workspace,
    endpoint: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pd.DataFrame:
    """Return an endpoint's calls with their truths: a row for each record of each call.

    To the columns of :mod:`nbmlops.calls` come ``actual`` and ``actual_at``, missing where no
    truth has come.
    """
    import pandas as pd

    table = calls.window(workspace, endpoint, since, until).pandas()
    known = standing(workspace, endpoint)
    found = [known.get(name) for name in zip(table["call_id"], table["row"], strict=True)]
    table["actual"] = pd.Series(
        [None if one is None else one.actual for one in found], dtype="object"
    )
    table["actual_at"] = pd.to_datetime(
        pd.Series([None if one is None else one.at for one in found], dtype="object"),
        utc=True,
    )
    return table
