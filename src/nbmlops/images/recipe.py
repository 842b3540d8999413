"""What an image is made of, and the Dockerfile that says so; the same always gives the same.

In layers from what changes least: the base and the installer, the tool's side (the same in all
images of a release), the project's side. So a changed lock makes the last layer again, and no more.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from nbmlops import environment, images
from nbmlops.errors import EnvironmentFailed

_CA_FILE = "/opt/nbmlops/ca.pem"
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_BUILD_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Those that every engine knows; they need no line of their own and stay out of the history.
_PREDEFINED = {f"{name}_PROXY" for name in ("HTTP", "HTTPS", "FTP", "NO", "ALL")}
_UV = "/opt/nbmlops/uv/bin/uv"
_INSTALL = f"{_UV} pip install --quiet --no-cache --compile-bytecode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that an image follows from.

    ``tool`` are the pinned requirements of the tool's side, ``kit`` the wheel of the running
    nbmlops as its name and content. ``lock`` is what the project's side is made of; without one
    there is no project's side, which is enough for a front.
    """

    base: str
    tool: str
    uv: str
    kit: tuple[str, bytes]
    lock: environment.Plan | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    ca_bundle: bytes | None = None

    @property
    def environment_id(self) -> str:
        """The id of the image, which is its tag: over everything that it follows from."""
        lock = self.lock
        covered = [
            self.base,
            self.tool,
            self.uv,
            _digest(self.kit[1]),
            sorted(self.build_args.items()),
            None if self.ca_bundle is None else _digest(self.ca_bundle),
            None
            if lock is None
            else [lock.source, [(k, _digest(v)) for k, v in sorted(lock.files.items())]],
            None if lock is None else lock.requirements,
            dockerfile(self),
        ]
        digest = _digest(msgspec.json.encode(covered, order="sorted"))
        return f"{'t' if lock is None else 'e'}-{digest[:16]}"


def default_base() -> str:
    """Return the public image of the Python that runs this."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def based_on(recipe: Recipe, base: str) -> Recipe:
    """Return the same recipe on another base."""
    return replace(recipe, base=base)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dockerfile(recipe: Recipe) -> str:
    """Return the Dockerfile of a recipe.

    Raises
    ------
    EnvironmentFailed
        When a build argument's name is none.
    """
    return "".join(f"{line}\n" for line in (*_base(recipe), *_tool(recipe), *_project(recipe)))


def _base(recipe: Recipe) -> list[str]:
    for name in recipe.build_args:
        if not _BUILD_ARGUMENT.fullmatch(name):
            raise EnvironmentFailed(
                f"`{name[:60]}` cannot be the name of a build argument",
                "Correct [images.build_args] in nbmlops.toml.",
            )
    lines = ["# base", f"FROM {recipe.base}", "USER 0:0"]
    own = (name for name in sorted(recipe.build_args) if name.upper() not in _PREDEFINED)
    lines += [f"ARG {name}" for name in own]
    if recipe.ca_bundle is not None:
        lines += [f"COPY ca.pem {_CA_FILE}"]
        lines += ["ENV " + " ".join(f"{name}={_CA_FILE}" for name in _CA_VARIABLES)]
    installer = "/opt/nbmlops/uv/bin/python -m pip install --quiet --no-cache-dir"
    lines += [
        "ENV LANG=C.UTF-8 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy",
        f"RUN python3 -m venv /opt/nbmlops/uv && {installer} uv=={recipe.uv}",
    ]
    return lines


def _tool(recipe: Recipe) -> list[str]:
    wheel, listed = recipe.kit[0], "/opt/nbmlops/tool.txt"
    install = f"{_INSTALL} --python {images.TOOL_PYTHON}"
    return [
        "# tool",
        f"COPY tool.txt {listed}",
        f"RUN {_UV} venv --quiet --python python3 /opt/nbmlops/tool && {install} -r {listed}",
        f"COPY {wheel} /opt/nbmlops/",
        f"RUN {install} --no-deps /opt/nbmlops/{wheel}",
    ]


def _project(recipe: Recipe) -> list[str]:
    lock = recipe.lock
    title = "nbmlops: the tool's side of jobs"
    lines = ["# project"]
    if lock is not None:
        title = "nbmlops: both sides of jobs"
        listed = f"/opt/nbmlops/lock/{environment.REQUIREMENTS}"
        steps = [f"{_UV} venv --quiet --python python3 /opt/nbmlops/project"]
        if lock.source == environment.UV_LOCK:
            steps.append(
                f"{_UV} export --quiet --frozen --no-emit-project --no-header --no-annotate"
                f" --project /opt/nbmlops/lock --python python3 --output-file {listed}"
            )
        needed = " ".join((*lock.requirements, f"/opt/nbmlops/{recipe.kit[0]}"))
        steps += [
            f"{_INSTALL} --python {images.PROJECT_PYTHON} -r {listed} {needed}",
            f"{images.PROJECT_PYTHON} -m nbmlops.images.about > {images.ABOUT_FILE}",
        ]
        lines += ["COPY lock/ /opt/nbmlops/lock/", f"RUN {' && '.join(steps)}"]
    labels = {
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.base.name": recipe.base,
        "org.opencontainers.image.source": "https://github.com/nbmlops/nbmlops",
    }
    lines += [
        "LABEL " + " ".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()),
        f"USER {images.USER}:{images.USER}",
    ]
    return lines


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def context(recipe: Recipe) -> dict[str, bytes]:
    """Return the files that the Dockerfile is built with, by their names, itself among them."""
    name, wheel = recipe.kit
    files = {
        "Dockerfile": dockerfile(recipe).encode(),
        "tool.txt": recipe.tool.encode(),
        name: wheel,
    }
    if recipe.ca_bundle is not None:
        files["ca.pem"] = recipe.ca_bundle
    if recipe.lock is not None:
        files |= {f"lock/{name}": data for name, data in recipe.lock.files.items()}
    return files
