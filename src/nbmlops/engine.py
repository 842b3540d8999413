"""The Docker engine: how it is reached, and what its errors mean. Nobody else loads its client."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from nbmlops.errors import LauncherUnavailable, MissingExtra, NbmlopsError

if TYPE_CHECKING:
    from docker import APIClient

_PATIENCE_S = 60


class NoSuchImage(NbmlopsError):
    """An image is neither here nor to be had from its registry."""

    code = "image-missing"
    exit_code = 5


class EngineRefused(NbmlopsError):
    """The engine is there and does not do what it was asked for."""

    code = "engine-refused"
    exit_code = 5


class NoSuchContainer(NbmlopsError):
    """A container is not there, or not any more."""

    code = "container-missing"


class NameTaken(NbmlopsError):
    """A container of that name is there already."""

    code = "container-exists"


def connect(environ: Mapping[str, str], *, patience_s: int = _PATIENCE_S) -> APIClient:
    """Return a client of the engine that ``DOCKER_HOST`` or the current context names.

    Raises
    ------
    MissingExtra
        When the ``docker`` package is not installed.
    LauncherUnavailable
        When the engine does not answer.
    """
    try:
        import docker
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "containers need the package `docker`", "Install it: `pip install 'nbmlops[docker]'`."
        ) from error
    from docker.utils import kwargs_from_env

    with speaking("connect"):
        return docker.APIClient(
            version="auto", timeout=patience_s, **kwargs_from_env(environment=dict(environ))
        )


@contextlib.contextmanager
def speaking(what: str) -> Generator[None, None, None]:
    """Tell what the engine's errors mean, in words of ours.

    Raises
    ------
    LauncherUnavailable
        When the engine does not answer.
    NoSuchImage, NoSuchContainer, NameTaken
        When it says so.
    EngineRefused
        For anything else that it says.
    """
    import requests
    from docker import errors

    try:
        yield
    except errors.ImageNotFound as error:
        raise NoSuchImage(_words(error), "See what is there: `docker images`.") from error
    except errors.NotFound as error:
        raise NoSuchContainer(_words(error)) from error
    except errors.APIError as error:
        if error.response is not None and error.response.status_code == 409:
            raise NameTaken(_words(error)) from error
        raise EngineRefused(
            f"the Docker engine refused to {what}: {_words(error)}",
            "Read what it says; its own log has more: `journalctl -u docker`.",
        ) from error
    except (errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise LauncherUnavailable(
            f"the Docker engine does not answer: {_short(str(error))}",
            "Start it (`systemctl start docker`, or Docker Desktop), or name another:"
            " `export DOCKER_HOST=...`.",
        ) from error


def _words(error: Any) -> str:
    return _short(str(error.explanation or error))


def _short(text: str) -> str:
    return " ".join(text.split())[:400]


def has_image(client: APIClient, reference: str) -> bool:
    """Return whether the engine has an image."""
    try:
        with speaking(f"look at the image {reference}"):
            client.inspect_image(reference)
    except (NoSuchImage, NoSuchContainer):
        return False
    return True


def split(reference: str) -> tuple[str, str | None]:
    """Return the repository and the tag, or digest, of an image's reference.

    >>> split("127.0.0.1:5000/team/churn:e-1"), split("127.0.0.1:5000/churn"), split("a@sha256:ff")
    (('127.0.0.1:5000/team/churn', 'e-1'), ('127.0.0.1:5000/churn', None), ('a', 'sha256:ff'))
    """
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, None)
