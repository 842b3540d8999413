"""Models: the contract with their callers, and registered versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from nbmlops.records.record import Record
from nbmlops.records.runs import ArtifactRecord, DataRecord, Probe

ColumnKind = Literal["number", "integer", "boolean", "category", "text"]
Level = str | bool | int | float  # of a category dtype


class Column(Record, frozen=True, kw_only=True):
    """One input column: its kind, and what training saw of it.

    ``low`` and ``high`` are the least and the greatest training value of a numeric column,
    ``categories`` the values of a categorical one. ``nullable`` is whether training had gaps.
    ``dtype`` is the column's type in the training table (``float32``, ``category``, ...), which
    the worker makes again; ``None`` leaves it to the kind. Of a ``category`` it has all ``levels``,
    in their order, and whether they are ``ordered``. ``gap`` is what stood for a null in a column
    of objects: ``nan``, or Python's ``none``.
    """

    name: str
    kind: ColumnKind
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    dtype: str | None = None
    levels: tuple[Level, ...] | None = None
    ordered: bool = False
    gap: Literal["nan", "none"] | None = None


class OutputSchema(Record, frozen=True, kw_only=True):
    """What a model answers: one of ``classes``, or a number that is plausible in ``low..high``.

    ``class_kind`` tells how the labels are spelled in JSON. What ``nbmlops.toml`` declares goes
    before what was inferred: ``low`` and ``high``; of the classes only those ``allowed``; and the
    least probability of the class that is answered, its ``confidence``. These two are never part of
    a version's own schema.
    """

    kind: Literal["label", "value"]
    classes: tuple[str, ...] | None = None
    class_kind: Literal["text", "integer", "boolean", "number"] = "text"
    probabilities: bool = False
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    confidence: float | msgspec.UnsetType = msgspec.UNSET


class Bounds(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a model's answers is plausible, as ``[models.NAME.bounds]`` declares it.

    Of values ``low`` and ``high``, both included; of labels those that are allowed, and the least
    probability of the one that is answered. What is left out stays as it was inferred.
    """

    low: float | None = None
    high: float | None = None
    labels: tuple[str | bool | int | float, ...] | None = None
    confidence: float | None = None

    @property
    def of_values(self) -> bool:
        """Whether they are for a model that answers values."""
        return self.low is not None or self.high is not None

    @property
    def of_labels(self) -> bool:
        """Whether they are for a model that answers labels."""
        return self.labels is not None or self.confidence is not None


class ModelSchema(Record, frozen=True, kw_only=True):
    """The contract of a model with its callers, inferred from the training data."""

    columns: tuple[Column, ...]
    output: OutputSchema
    example: dict[str, Any] = {}


class ModelVersion(Record, frozen=True, kw_only=True):
    """A registered model: its digest is its identity, its number was given by the ledger.

    ``files`` has the roles ``model``, ``schema``, ``profile``, ``environment`` and, where the model
    answers the same twice, ``sample``; where it was logged with a test set, ``performance``, what
    that has shown. ``loader``, ``command`` and ``image`` are what ``[models]`` said of it; they
    belong to ``project_dir`` of its commit, the command to the image where there is one.
    ``pushed`` is whether a git remote has the number too; ``None`` where there is no remote, or
    nobody asked.
    """

    model: str
    version: int
    digest: str
    run_id: str
    commit: str
    created_at: datetime
    stage: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float | None] = {}
    format: str
    files: dict[str, ArtifactRecord]
    environment_id: str
    notebook: str
    notebook_blob: str
    cell_id: str | None
    cell: int | None = None
    cell_is: Literal["tagged", "log_model"] = "log_model"
    snapshot: str
    run_digest: str
    data: tuple[DataRecord, ...] = ()
    author: str
    probe: Probe = Probe()
    loader: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None
    project_dir: str = "."
    pushed: bool | None = None

    @property
    def name(self) -> str:
        """The version as people write it, ``model:number``."""
        return f"{self.model}:{self.version}"

    @property
    def served_by_program(self) -> bool:
        """Whether a program that is not ours answers for it: the project's, or an image's."""
        return bool(self.command) or self.image is not None
