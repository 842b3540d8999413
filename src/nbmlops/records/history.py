"""History: the ledger, traces, health, lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.record import Record
from nbmlops.records.runs import DataRecord


class LedgerEntry(Record, frozen=True, kw_only=True):
    """One decision, for ever: ``sequence`` orders, ``at`` only informs.

    ``place`` is the clone in which it was made, by an id that says nothing else of it.

    Kinds are ``version``, ``deployed``, ``undeployed`` and ``alias``; a reader passes over what a
    newer nbmlops has decided.
    """

    sequence: int
    kind: str
    at: datetime
    author: str
    place: str | None = None
    body: dict[str, Any]


class TracedSnapshot(Record, frozen=True, kw_only=True):
    """The code behind an answer: the commit, the notebook's blob, the training cell."""

    commit: str
    notebook: str | None
    notebook_blob: str | None
    cell_id: str | None
    source: str | None
    cell: int | None = None
    cell_is: Literal["tagged", "log_model"] | None = None
    dirty: bool | None = None
    base_commit: str | None = None


class TracedEnvironment(Record, frozen=True, kw_only=True):
    """The packages behind an answer."""

    id: str
    packages: dict[str, str]


class Trace(Record, frozen=True, kw_only=True):
    """The chain from a call to the cell that trained its model; the document of ``trace``.

    What lies above the point one starts from is ``None``; what should be there and is not, is
    named in ``missing``.
    """

    call: dict[str, Any] | None
    endpoint: dict[str, Any] | None
    deployment: dict[str, Any] | None
    model_version: dict[str, Any] | None
    run: dict[str, Any] | None
    snapshot: TracedSnapshot | None
    data: tuple[DataRecord, ...]
    environment: TracedEnvironment | None
    complete: bool
    missing: tuple[str, ...]


class Finding(Record, frozen=True, kw_only=True):
    """Something that ``doctor`` found, with what to do about it."""

    code: str
    message: str
    fix: str
    invariant: str | None = None


class Health(Record, frozen=True, kw_only=True):
    """The document of ``doctor``: each invariant is ``ok`` or ``broken``.

    ``repaired`` is what ``--repair`` has put right; it is not among the findings any more.
    ``advice`` is what is not here and need not be: it breaks no invariant.
    """

    invariants: dict[str, str]
    findings: tuple[Finding, ...]
    repaired: tuple[Finding, ...] = ()
    advice: tuple[Finding, ...] = ()


Level = Literal["advise", "warn", "block"]


class CheckFinding(Record, frozen=True, kw_only=True):
    """A rule that a project breaks: where, how grave, and what mends it.

    ``cell`` counts from 1 over all cells of a notebook, ``line`` from 1 within the cell or file.
    ``fixable`` is whether ``check --fix`` mends it.
    """

    code: str
    level: Level
    path: str
    cell: int | None = None
    line: int | None = None
    message: str
    fix: str
    fixable: bool = False


class CheckReport(Record, frozen=True, kw_only=True):
    """The document of ``check``; ``fixed`` is what ``--fix`` has mended.

    ``level`` is from where on a finding counts as a failure; ``notebooks`` and ``files`` are how
    many were looked at.
    """

    findings: tuple[CheckFinding, ...]
    fixed: tuple[CheckFinding, ...] = ()
    level: Level = "warn"
    notebooks: int = 0
    files: int = 0


class Listing(Record, frozen=True, kw_only=True):
    """A page of a list; ``next`` is the cursor of the following page."""

    items: tuple[Any, ...]
    next: str | None = None
