"""Images made, pushed and looked into, by the Docker engine.

An image that the engine has under its id is not made again, and one whose digest the registry has
confirmed is not pushed again.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nbmlops import engine, images, layout, records
from nbmlops.errors import EnvironmentFailed, EnvironmentUnreachable, NbmlopsError
from nbmlops.images.recipe import Recipe, context
from nbmlops.records import Record

if TYPE_CHECKING:
    from docker import APIClient

_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)", re.DOTALL)
_NOT_REACHED = re.compile(
    r"error sending request|dns error|Failed to fetch|NewConnectionError|Temporary failure in name"
    r"|no such host|connection refused|i/o timeout",
    re.IGNORECASE,
)
_LAST_LINES = 8


class PushFailed(NbmlopsError):
    """An image is not in the registry, or not the one that was pushed."""

    code = "push-failed"
    exit_code = 5


def ensure(client: APIClient, recipe: Recipe, reference: str, say: Callable[[str], None]) -> bool:
    """Have the engine make an image of the recipe unless it has it; return whether it was made.

    Raises
    ------
    NoSuchImage
        When the base image is neither here nor to be pulled; it is never made by us.
    EnvironmentFailed
        When a step of it fails, with that step's last words.
    EnvironmentUnreachable
        When no index of packages answers.
    """
    if engine.has_image(client, reference):
        return False
    require(client, recipe.base, say)
    say(f"building the image {reference} (once)")
    _build(client, context(recipe).items(), "Dockerfile", reference, recipe.build_args, say)
    return True


def build_folder(
    client: APIClient,
    folder: Iterable[tuple[str, bytes]],
    dockerfile: str,
    reference: str,
    build_args: dict[str, str],
    say: Callable[[str], None],
) -> None:
    """Have the engine make an image of somebody's own Dockerfile, unless it has it."""
    if engine.has_image(client, reference):
        return
    say(f"building {dockerfile} as {reference} (once)")
    _build(client, folder, dockerfile, reference, build_args, say)


def _build(
    client: APIClient,
    files: Iterable[tuple[str, bytes]],
    dockerfile: str,
    reference: str,
    build_args: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    with engine.speaking("build an image"):
        lines = client.build(
            fileobj=io.BytesIO(_archive(files)),
            custom_context=True,
            dockerfile=dockerfile,
            tag=reference,
            buildargs=dict(build_args),
            rm=True,
            forcerm=True,
            decode=True,
        )
        _follow(lines, reference, say)


def require(
    client: APIClient,
    base: str,
    say: Callable[[str], None],
    setting: str = "`base` under [images]",
) -> None:
    """Have the engine pull an image unless it has it; ``setting`` is where it was named.

    Raises
    ------
    NoSuchImage
        When it is neither here nor to be pulled.
    """
    if engine.has_image(client, base):
        return
    say(f"pulling the image {base}")
    name, tag = engine.split(base)
    try:
        with engine.speaking(f"pull {base}"):
            client.pull(name, tag=tag or "latest")
    except (engine.NoSuchImage, engine.NoSuchContainer, engine.EngineRefused) as error:
        raise engine.NoSuchImage(
            f"the image {base} is not on this machine and cannot be pulled: {error.message}",
            f"Name one that can, as {setting} in nbmlops.toml; or load it: `docker load -i FILE`.",
            image=base,
        ) from error


def _archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar archive that is the same for the same files: the engine's cache sees bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _follow(lines: Iterator[dict[str, Any]], reference: str, say: Callable[[str], None]) -> None:
    """Say which step is under way, and raise what one failed with."""
    wrote: list[str] = []
    step = ""
    for line in lines:
        text = str(line.get("stream", ""))
        if found := _STEP.match(text):
            step = " ".join(found[3].split())[:90]
            say(f"  {found[1]}/{found[2]} {step}")
            wrote = []
        elif text.strip():
            wrote = [*wrote, *text.strip().splitlines()][-_LAST_LINES:]
        if "error" in line:
            words = " | ".join(_plain(one) for one in (*wrote, str(line["error"])))[:1500]
            kind = EnvironmentUnreachable if _NOT_REACHED.search(words) else EnvironmentFailed
            raise kind(
                f"the image {reference} cannot be made; step `{step}` failed: {words}",
                "Correct the lock; or give the build what it needs under [images] in nbmlops.toml:"
                " base, build_args (such as PIP_INDEX_URL), ca_bundle.",
                image=reference,
            )


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


class Held(Record, frozen=True, kw_only=True):
    """What the project's side of an image says of itself."""

    python: str
    python_version: str
    platform: str
    packages: dict[str, str]
    nbmlops: str


def held(client: APIClient, reference: str, cache: Path) -> Held:
    """Return what the project's side of an image holds, read once and kept by the image's digest.

    Raises
    ------
    EnvironmentFailed
        When the image does not say.
    """
    image_id = digest_of(client, reference).partition(":")[2]
    kept = cache / "images" / f"{layout.checked_digest(image_id)}.json"
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        return records.load(kept.read_bytes(), Held)
    try:
        told = _read(client, reference)
        found = records.load(told, Held)
    except (engine.NoSuchContainer, msgspec.MsgspecError, tarfile.TarError) as error:
        raise EnvironmentFailed(
            f"the image {reference} does not tell what it holds: {error}",
            f"It needs {images.TOOL_PYTHON} and {images.PROJECT_PYTHON}, both with nbmlops, and"
            f" what `{images.PROJECT_PYTHON} -m nbmlops.images.about` says in {images.ABOUT_FILE}.",
            image=reference,
        ) from error
    layout.write_file(kept, told)
    return found


def _read(client: APIClient, reference: str) -> bytes:
    with engine.speaking(f"look into {reference}"):
        made = client.create_container(reference, command=["true"])
        try:
            stream, _ = client.get_archive(made, images.ABOUT_FILE)
            body = b"".join(stream)
        finally:
            client.remove_container(made, force=True)
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        first = archive.next()
        inner = None if first is None else archive.extractfile(first)
        return b"" if inner is None else inner.read()


def digest_of(client: APIClient, reference: str) -> str:
    """Return the engine's own digest of an image, over all that it is."""
    with engine.speaking(f"look at {reference}"):
        return str(client.inspect_image(reference)["Id"])


def size_of(client: APIClient, reference: str) -> int:
    """Return how many bytes an image has."""
    with engine.speaking(f"look at {reference}"):
        return int(client.inspect_image(reference)["Size"])


def push(client: APIClient, reference: str, say: Callable[[str], None]) -> str:
    """Push an image and return its reference by digest, which the registry has confirmed.

    Raises
    ------
    PushFailed
        When the registry does not take it, or tells another digest than was pushed.
    """
    name, tag = engine.split(reference)
    say(f"pushing {reference}")
    digest = None
    shown: set[str] = set()
    with engine.speaking(f"push {reference}"):
        for line in client.push(name, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise PushFailed(
                    f"{reference} was not pushed: {_plain(str(line['error']))[:400]}",
                    "See that you are logged in (`docker login`), then again:"
                    " `nbmlops build --push`.",
                    image=reference,
                )
            layer, status = str(line.get("id", "")), str(line.get("status", ""))
            if status in ("Pushed", "Layer already exists") and layer not in shown:
                shown.add(layer)
                say(f"  layer {layer}: {status.lower()}")
            digest = (line.get("aux") or {}).get("Digest", digest)
    found = confirmed(client, reference)
    if digest is None or found != digest:
        raise PushFailed(
            f"{reference} was pushed as {digest}, and the registry has {found}",
            "Push it again: `nbmlops build --push`.",
            image=reference,
        )
    return f"{name}@{digest}"


def confirmed(client: APIClient, reference: str) -> str | None:
    """Return the digest that a registry has an image under, ``None`` when it has none."""
    try:
        with engine.speaking(f"ask the registry for {reference}"):
            told = client.inspect_distribution(reference)
    except (engine.NoSuchImage, engine.NoSuchContainer, engine.EngineRefused):
        return None
    return str(told["Descriptor"]["digest"])
