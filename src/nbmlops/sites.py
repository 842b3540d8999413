"""Sites: the two sides of a job where a launcher finds them.

On this machine they are interpreters; elsewhere they are in an image that follows from the lock of
a commit, from the running nbmlops and from ``[images]`` of ``nbmlops.toml``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nbmlops import engine, environment, images, layout, pipelines
from nbmlops._version import __version__
from nbmlops.errors import (
    EnvironmentFailed,
    LauncherUnavailable,
    MissingExtra,
    NbmlopsError,
    WrongUse,
)
from nbmlops.images import building, recipe
from nbmlops.images.recipe import Recipe
from nbmlops.records import Built, Environment, JobHandle, ModelVersion, Record, replace
from nbmlops.workspace import FAR, IN_CONTAINERS, Workspace

if TYPE_CHECKING:
    from docker import APIClient


class _Pushed(Record, frozen=True, kw_only=True):
    """What the registry has confirmed of an image, by the engine's own digest of it."""

    image_digest: str
    by_digest: str


def prepare(workspace: Workspace, launcher: str, commit: str) -> Environment:
    """Return the environment of a commit's jobs, made where it is not there yet.

    Raises
    ------
    EnvironmentFailed
        When the commit has no lock and the launcher needs one, or the lock cannot be installed.
    EnvironmentUnreachable
        When no index of packages answers.
    NoSuchImage
        When the base image cannot be had.
    """
    if launcher not in IN_CONTAINERS:
        wanted = pipelines.environment_plan(workspace, commit)
        return environment.ensure(wanted, workspace.cache, workspace.say)
    from_registry = launcher in FAR and workspace.settings.images.image is None
    built = build(workspace, commit, push=from_registry)
    return Environment(
        environment_id=built.environment_id,
        python=images.PROJECT_PYTHON,
        python_version=built.python_version,
        platform=built.platform,
        source=built.source,
        packages=built.packages,
        image=built.image,
        image_digest=built.image_digest,
    )


def tool_of(made: Environment) -> str:
    """Return the interpreter of the tool's side that belongs to an environment."""
    return sys.executable if made.image is None else images.TOOL_PYTHON


def again(workspace: Workspace, launcher: str, commit: str, before: Environment) -> Environment:
    """Return the environment of jobs that ran before, made again where it is gone.

    A launcher of another kind than theirs has one of its own, from the same lock.
    """
    here = launcher not in IN_CONTAINERS
    if here and before.image is None and Path(before.python).exists():
        return before
    return prepare(workspace, launcher, commit)


def tool(workspace: Workspace, launcher: str) -> tuple[str, str | None]:
    """Return the interpreter of the tool's side alone, and its image: enough for a front."""
    if launcher not in IN_CONTAINERS:
        return sys.executable, None
    settings = workspace.settings.images
    if settings.image is not None:
        return images.TOOL_PYTHON, settings.image
    client = engine.connect(workspace.environ)
    wanted = _recipe(workspace, lock=None)
    reference = _reference(workspace, wanted.environment_id)
    _ensure(workspace, client, wanted, reference)
    if launcher in FAR:
        return images.TOOL_PYTHON, _push(workspace, client, reference)[0]
    return images.TOOL_PYTHON, reference


def build(workspace: Workspace, commit: str, *, push: bool = False) -> Built:
    """Have the engine make the image of a commit's environment; one that is there stays.

    Raises
    ------
    EnvironmentFailed
        When the commit has no lock, or a step of the build fails.
    NoSuchImage
        When the base image, or a ready image, is not to be had.
    PushFailed
        When the registry does not take it.
    """
    settings = workspace.settings.images
    if settings.image is not None and push:
        raise WrongUse(
            f"{settings.image} is ready: it is used as it is, and nothing is pushed",
            "Leave --push out; or name a base instead of an image under [images].",
        )
    if settings.image is not None:
        return _made_by_others(workspace, settings.image)
    wanted = _recipe(workspace, lock=_lock(workspace, commit))
    client = engine.connect(workspace.environ)
    reference = _reference(workspace, wanted.environment_id)
    made = _ensure(workspace, client, wanted, reference)
    return _built(
        workspace,
        client,
        reference,
        wanted.environment_id,
        base=wanted.base,
        source=wanted.lock.source if wanted.lock else None,
        made=made,
        push=push,
    )


def _lock(workspace: Workspace, commit: str) -> environment.Plan:
    plan = pipelines.environment_plan(workspace, commit)
    if plan.source is None:
        raise EnvironmentFailed(
            "nothing in the commit says which packages the project needs, and an image is made"
            " of nothing else",
            "Pin them: `pip freeze > requirements.txt`, then take out what you do not import.",
        )
    return plan


def planned(workspace: Workspace, launcher: str, commit: str) -> Environment:
    """Return the environment of a commit's jobs as far as it is known before anything is made."""
    image = workspace.settings.images.image
    if launcher not in IN_CONTAINERS:
        plan, python = pipelines.environment_plan(workspace, commit), sys.executable
        name, source = plan.environment_id, plan.source
        if source is not None:
            python = str(environment.folder_of(workspace.cache, name) / "bin" / "python")
    elif image is not None:
        name, source, python = "i-", None, images.PROJECT_PYTHON
    else:
        wanted = _recipe(workspace, lock=_lock(workspace, commit))
        name, python = wanted.environment_id, images.PROJECT_PYTHON
        source = wanted.lock.source if wanted.lock else None
        image = _reference(workspace, name)
    return Environment(
        environment_id=name,
        python=python,
        python_version="",
        platform="",
        source=source,
        packages={},
        image=image if launcher in IN_CONTAINERS else None,
    )


def tool_planned(workspace: Workspace, launcher: str) -> tuple[str, str | None]:
    """Return what :func:`tool` will, without making anything."""
    if launcher not in IN_CONTAINERS:
        return sys.executable, None
    ready = workspace.settings.images.image
    wanted = None if ready else _recipe(workspace, lock=None)
    return images.TOOL_PYTHON, ready or _reference(
        workspace, wanted.environment_id if wanted else ""
    )


def _ensure(workspace: Workspace, client: APIClient, wanted: Recipe, reference: str) -> bool:
    """Have the engine make an image, and first the project's own base where it has a Dockerfile."""
    if engine.has_image(client, reference):
        return False
    path = workspace.settings.images.dockerfile
    if path is not None:
        files = _context(workspace, path).items()
        arguments = dict(wanted.build_args)
        building.build_folder(client, files, Path(path).name, wanted.base, arguments, workspace.say)
    return building.ensure(client, wanted, reference, workspace.say)


def _made_by_others(workspace: Workspace, reference: str) -> Built:
    digest = reference.partition("@")[2]
    try:
        client = engine.connect(workspace.environ)
    except (LauncherUnavailable, MissingExtra):
        if not digest:
            raise
        # What ran in it is told by the interpreter that ran the cells.
        return Built(
            environment_id=_ready_id(digest),
            image=reference,
            image_digest=digest,
            base=reference,
            source=None,
            python_version="",
            platform="",
            packages={},
            built=False,
            pushed=False,
            bytes=0,
        )
    return _ready(workspace, client, reference)


def _ready_id(digest: str) -> str:
    return f"i-{hashlib.sha256(digest.encode()).hexdigest()[:16]}"


def _ready(workspace: Workspace, client: APIClient, reference: str) -> Built:
    """Return what an image that somebody has made holds.

    One that is named by its digest is what it is, though no engine here can look into it.
    """
    building.require(client, reference, workspace.say)
    digest = reference.partition("@")[2] or building.digest_of(client, reference)
    found = building.held(client, reference, workspace.cache)
    if found.nbmlops != __version__:
        raise EnvironmentFailed(
            f"the image {reference} has nbmlops {found.nbmlops}, and this is {__version__}",
            f"Install this one in it: `pip install nbmlops=={__version__}`, in both sides.",
            image=reference,
        )
    name = _ready_id(digest)
    built = _built(
        workspace, client, reference, name, base=reference, source=None, made=False, push=False
    )
    return replace(built, image_digest=digest)


def _built(
    workspace: Workspace,
    client: APIClient,
    reference: str,
    environment_id: str,
    *,
    base: str,
    source: str | None,
    made: bool,
    push: bool,
) -> Built:
    held = building.held(client, reference, workspace.cache)
    digest, pushed = building.digest_of(client, reference), False
    image = reference
    if push:
        image, pushed = _push(workspace, client, reference)
        digest = image.partition("@")[2]
    return Built(
        environment_id=environment_id,
        image=image,
        image_digest=digest,
        base=base,
        source=source,
        python_version=held.python_version,
        platform=held.platform,
        packages=held.packages,
        built=made,
        pushed=pushed,
        bytes=building.size_of(client, reference),
    )


def _push(workspace: Workspace, client: APIClient, reference: str) -> tuple[str, bool]:
    """Return an image's reference by digest, pushed unless the registry has confirmed it before."""
    if workspace.settings.images.registry is None:
        raise WrongUse(
            "there is no registry to push images to",
            'Name one in nbmlops.toml: registry = "HOST/TEAM" under [images].',
        )
    own = building.digest_of(client, reference)
    kept = workspace.cache / "images" / f"{hashlib.sha256(reference.encode()).hexdigest()}.pushed"
    try:
        before = msgspec.json.decode(kept.read_bytes(), type=_Pushed)
        if before.image_digest == own:
            return before.by_digest, False
    except (FileNotFoundError, msgspec.MsgspecError):
        pass
    by_digest = building.push(client, reference, workspace.say)
    done = _Pushed(image_digest=own, by_digest=by_digest)
    layout.write_file(kept, msgspec.json.encode(done))
    return by_digest, True


def _reference(workspace: Workspace, environment_id: str) -> str:
    """Return an image's name: the project's repository, the environment's id as its tag."""
    registry = workspace.settings.images.registry
    name = f"nbmlops/{workspace.settings.project.name}"
    return f"{registry.rstrip('/') + '/' if registry else ''}{name}:{environment_id}"


def _recipe(workspace: Workspace, *, lock: environment.Plan | None) -> Recipe:
    """Return what an image is made of, by the settings and the running nbmlops."""
    settings = workspace.settings.images
    wheel = environment.build_kit(workspace.cache / "kits")
    made = Recipe(
        base=settings.base or recipe.default_base(),
        tool=environment.tool_requirements(settings.packages, workspace.cache / "tools"),
        uv=environment.uv_version(),
        kit=(wheel.name, wheel.read_bytes()),
        lock=lock,
        build_args=_build_args(workspace, settings.build_args),
        ca_bundle=_ca_bundle(workspace, settings.ca_bundle),
    )
    if settings.dockerfile is None:
        return made
    return recipe.based_on(made, _own_base(workspace, settings.dockerfile, made))


def _build_args(workspace: Workspace, given: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments; ``$NAME`` stands for a variable of whoever builds."""
    found: dict[str, str] = {}
    for name, value in given.items():
        if not value.startswith("$"):
            found[name] = value
        elif value[1:] in workspace.environ:
            found[name] = workspace.environ[value[1:]]
        else:
            raise WrongUse(
                f"the build argument {name} is {value}, and there is no such variable",
                f"Set it: `export {value[1:]}=...`; or change [images.build_args].",
            )
    return found


def _ca_bundle(workspace: Workspace, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return (workspace.root / path).read_bytes()
    except OSError as error:
        raise WrongUse(
            f"the CA bundle {path} cannot be read: {error.strerror}",
            "Correct `ca_bundle` under [images] in nbmlops.toml.",
        ) from error


def _own_base(workspace: Workspace, path: str, made: Recipe) -> str:
    """Return the name of the image of the project's own Dockerfile, which ours is put on."""
    files = _context(workspace, path)
    name = Path(path).name
    covered = msgspec.json.encode(
        [[(k, hashlib.sha256(v).hexdigest()) for k, v in sorted(files.items())], name,
         sorted(made.build_args.items())]
    )  # fmt: skip
    return _reference(workspace, f"b-{hashlib.sha256(covered).hexdigest()[:16]}")


def _context(workspace: Workspace, path: str) -> dict[str, bytes]:
    """Return what a Dockerfile of the project can copy: what lies in a folder of its own."""
    file = workspace.root / path
    if not file.is_file():
        raise WrongUse(
            f"there is no {path}", "Correct `dockerfile` under [images] in nbmlops.toml."
        )
    if file.parent == workspace.root:
        return {file.name: file.read_bytes()}
    return {
        one.relative_to(file.parent).as_posix(): one.read_bytes()
        for one in sorted(file.parent.rglob("*"))
        if one.is_file() and not one.is_symlink()
    }


# --- images of programs that are not ours ---------------------------------------------------------


class NeedsContainers(NbmlopsError):
    """A model's program is in an image, and was to run where there are no containers."""

    code = "needs-containers"


class ImageNotPinned(NbmlopsError):
    """An image is named by a tag where only its digest says what runs."""

    code = "image-not-pinned"


class Foreign(Record, frozen=True, kw_only=True):
    """An image with a program that is not ours, as a launcher is told it.

    ``digest`` is what it is verified by; before an engine was asked for what a tag means there is
    none. ``carrier`` is the image of the tool's side that brings the inbox.
    """

    image: str
    digest: str | None
    carrier: str


def refuse_here(version: ModelVersion, launcher: str) -> None:
    """Refuse to serve a version by a launcher that cannot run its image.

    Raises
    ------
    NeedsContainers
        When what it runs are processes of this machine.
    ImageNotPinned
        When nodes of a cluster would pull it, each at its time, by a tag.
    """
    if version.image is None:
        return
    if launcher not in IN_CONTAINERS:
        raise NeedsContainers(
            f"{version.name} is served by a program in the image {version.image}, and the launcher"
            f" `{launcher}` runs no containers",
            "Name one that does: --on docker, or --on kubernetes.",
            image=version.image,
        )
    if launcher in FAR and not _digest_named(version.image):
        raise ImageNotPinned(
            f"{version.name} is served by the image {version.image}, which has no digest: nodes of"
            " a cluster may get another image by that name",
            f'Write image = "NAME@sha256:..." under [models.{version.model}] in nbmlops.toml, as'
            " `docker inspect --format '{{.RepoDigests}}' IMAGE` tells it, and train again.",
            image=version.image,
        )


def _digest_named(reference: str) -> str | None:
    return reference.partition("@")[2] or None


def foreign_planned(workspace: Workspace, launcher: str, version: ModelVersion) -> Foreign:
    """Return what :func:`foreign` will as far as it is known, without asking or making anything."""
    refuse_here(version, launcher)
    image = str(version.image)
    carrier = str(tool_planned(workspace, launcher)[1])
    return Foreign(image=image, digest=_digest_named(image), carrier=carrier)


def foreign(workspace: Workspace, launcher: str, version: ModelVersion) -> Foreign:
    """Return the image of a version's program, pulled where the engine does not have it.

    A tag may move: what runs is what it named when it was looked up.

    Raises
    ------
    NeedsContainers, ImageNotPinned
        As :func:`refuse_here`.
    NoSuchImage
        When it is neither here nor to be pulled.
    """
    planned = foreign_planned(workspace, launcher, version)
    if launcher in FAR:  # its nodes pull both
        return replace(planned, carrier=str(tool(workspace, launcher)[1]))
    # An engine mounts the inbox, and nothing has to be made that brings it.
    client = engine.connect(workspace.environ)
    where = f"`image` under [models.{version.model}]"
    building.require(client, planned.image, workspace.say, where)
    if planned.digest is not None:
        return planned
    digest = building.digest_of(client, planned.image)
    return replace(planned, image=digest, digest=digest)


# --- tokens of workers --------------------------------------------------------------------------


def worker_token(workspace: Workspace, deployment_id: str) -> str:
    """Return what the front shows a worker on TCP: its own, from a key that home alone has."""
    path = workspace.home.worker_key
    if not path.exists():
        layout.write_file(path, secrets.token_bytes(32), mode=0o600)
    return hmac.new(path.read_bytes(), deployment_id.encode(), hashlib.sha256).hexdigest()


def token_for(workspace: Workspace, handle: JobHandle) -> str | None:
    """Return what a worker is shown, where it is reached by TCP beyond this machine's loopback."""
    return worker_token(workspace, handle.name) if handle.launcher in IN_CONTAINERS else None
