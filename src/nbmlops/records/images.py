"""Images, and what would be sent to a launcher."""

from __future__ import annotations

from typing import Any, Literal

from nbmlops.records.record import Record


class Built(Record, frozen=True, kw_only=True):
    """An image that the engine has; the document of ``build``.

    ``image`` is what it is started by: by digest once it was pushed; ``built`` and ``pushed`` say
    what was done just now.
    """

    environment_id: str
    image: str
    image_digest: str
    base: str
    source: str | None
    python_version: str
    platform: str
    packages: dict[str, str]
    built: bool
    pushed: bool
    bytes: int


class PlanChange(Record, frozen=True, kw_only=True):
    """A field of an object that stands otherwise than it would be sent.

    ``was`` is what stands, ``becomes`` what would be sent; of an object that is new ``field`` is
    empty.
    """

    object: str
    field: str
    was: Any
    becomes: Any


class Plan(Record, frozen=True, kw_only=True):
    """What a command would send to a launcher, which nothing has been sent to; of ``plan``.

    ``documents`` are of the launcher's own kind: processes, containers, Kubernetes objects. What
    follows only from a build, such as digests, is not in them. ``output`` is how people want them.
    """

    command: Literal["train", "deploy", "rbac"]
    launcher: str
    subject: str
    documents: tuple[dict[str, Any], ...]
    changes: tuple[PlanChange, ...]
    live: bool
    output: Literal["text", "yaml"] = "text"
