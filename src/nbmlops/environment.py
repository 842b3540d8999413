"""Environments: the interpreter and the packages that a project's own code runs in.

From the repository's lock ``uv`` makes an isolated environment, kept under an id that covers the
lock, the kit that nbmlops adds, the interpreter and the platform; the same again costs nothing.
Without a lock the current interpreter serves, recorded as a full list of packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout, records
from nbmlops._version import __version__
from nbmlops.errors import EnvironmentFailed, EnvironmentUnreachable
from nbmlops.records import Environment

UV_LOCK = "uv.lock"
PROJECT_FILE = "pyproject.toml"
REQUIREMENTS = "requirements.txt"
# What says which packages a project needs; the first of UV_LOCK, REQUIREMENTS and PROJECT_FILE
# that does is taken.
LOCK_FILES = (UV_LOCK, REQUIREMENTS, PROJECT_FILE)
_ABOUT = "nbmlops-environment.json"
_OF_AN_EXTRA = re.compile(r"""(;|\band)\s*\(?\s*extra\s*==\s*['"][^'"]+['"]\s*\)?\s*$""")
_WHEEL_TIME = (2020, 1, 1, 0, 0, 0)  # the same sources give the same wheel


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment is to be made of; its id is known before anything is made.

    ``source`` names the lock, ``files`` holds it with what it cannot be read without.
    """

    environment_id: str
    source: str | None
    files: Mapping[str, bytes]
    requirements: tuple[str, ...]


def plan(found: Mapping[str, bytes]) -> Plan:
    """Return what the environment is made of, given the files of ``LOCK_FILES`` that there are.

    The id covers the lock, the kit, the interpreter and the platform. Where nothing says which
    packages are needed, the current interpreter serves.

    Raises
    ------
    EnvironmentFailed
        When the lock cannot be read, or points at files that the id would not cover.
    """
    source, files = _lock(found)
    if source is None:
        packages = installed()
        text = msgspec.json.encode([sys.executable, sorted(packages.items())])
        return Plan(f"e-{hashlib.sha256(text).hexdigest()[:16]}", None, {}, ())
    lock = b"\n".join(files[name] for name in sorted(files))
    requirements = ["ipykernel", "msgspec"]
    if re.search(rb"""(?im)^[\s"']*(name = ")?scikit[-_.]learn\b""", lock):
        requirements.append("skops")
    covered = [
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        requirements,
        kit_digest(),
        platform.python_version(),
        sys.implementation.cache_tag,
        platform.machine(),
        sys.platform,
    ]
    digest = hashlib.sha256(msgspec.json.encode(covered, order="sorted")).hexdigest()
    return Plan(f"e-{digest[:16]}", source, files, tuple(requirements))


def _lock(found: Mapping[str, bytes]) -> tuple[str | None, dict[str, bytes]]:
    """Return the name of the lock and the files that it is made of."""
    project = _project(found[PROJECT_FILE]) if PROJECT_FILE in found else None
    if UV_LOCK in found:
        if project is None:
            raise EnvironmentFailed(
                f"there is a {UV_LOCK} without the {PROJECT_FILE} that it was made from",
                f"Commit {PROJECT_FILE} beside it, or remove {UV_LOCK}.",
            )
        return UV_LOCK, {UV_LOCK: found[UV_LOCK], PROJECT_FILE: found[PROJECT_FILE]}
    if REQUIREMENTS in found:
        _refuse_paths(found[REQUIREMENTS].decode(errors="replace").splitlines(), REQUIREMENTS)
        return REQUIREMENTS, {REQUIREMENTS: found[REQUIREMENTS]}
    if project and isinstance(needed := project.get("dependencies"), list) and needed:
        lines = [str(line) for line in needed]
        _refuse_paths(lines, PROJECT_FILE)
        return PROJECT_FILE, {REQUIREMENTS: "".join(f"{line}\n" for line in lines).encode()}
    return None, {}


def _project(data: bytes) -> dict[str, Any]:
    """Return the ``[project]`` table of a ``pyproject.toml``."""
    try:
        table = tomllib.loads(data.decode()).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentFailed(
            f"{PROJECT_FILE} is not valid TOML: {error}", f"Correct {PROJECT_FILE}."
        ) from error
    return table if isinstance(table, dict) else {}


def _refuse_paths(lines: Iterable[str], source: str) -> None:
    """Refuse lines that mean other files: the id would not cover what they say."""
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if re.match(
            r"(-e|--editable|-r|--requirement|-c|--constraint)\b|\.{0,2}/|\.+$|file:", word
        ) or (re.search(r"@\s*(file:|\.{0,2}/)", word)):
            raise EnvironmentFailed(
                f"{source} line {number} points at other files: {word[:80]}",
                "Pin packages by name and version. A module of your own is imported from the"
                " notebook's folder, where the job has it too.",
            )


def ensure(wanted: Plan, cache: Path, say: Callable[[str], None]) -> Environment:
    """Return the environment, and make it first where it is not there yet.

    Raises
    ------
    EnvironmentFailed
        When the lock cannot be installed, with uv's own words.
    EnvironmentUnreachable
        When packages are missing from uv's cache and no index answers.
    """
    if wanted.source is None:
        return Environment(
            environment_id=wanted.environment_id,
            python=sys.executable,
            python_version=platform.python_version(),
            platform=platform.platform(),
            source=None,
            packages=installed(),
        )
    folder = folder_of(cache, wanted.environment_id)
    if (found := _read(folder)) is not None:
        with contextlib.suppress(OSError):  # the cache may be shared, and another's
            os.utime(folder)  # so that `gc` of any project sees its use
        return found
    with _only_one(folder.with_suffix(".lock")):
        if (found := _read(folder)) is not None:
            return found
        say(f"making the environment {wanted.environment_id} from {wanted.source} (once)")
        making = folder.with_name(f"{folder.name}.making")
        try:
            return _make(wanted, wanted.source, making, folder, cache)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def folder_of(cache: Path, environment_id: str) -> Path:
    """Return where an environment is kept."""
    return cache / "environments" / environment_id


def _read(folder: Path) -> Environment | None:
    try:
        found = records.load((folder / _ABOUT).read_bytes(), Environment)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if Path(found.python).exists() else None


def _make(wanted: Plan, source: str, making: Path, folder: Path, cache: Path) -> Environment:
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    kit = build_kit(cache / "kits")
    python = making / "bin" / "python"
    _uv(source, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(making))
    listed = _listed(wanted, making)
    # One call: the kit's wheel names no dependencies of its own.
    _uv(
        source,
        *("pip", "install", "--quiet", "--python", str(python), "--requirement", str(listed)),
        *wanted.requirements,
        str(kit),
    )
    environment = Environment(
        environment_id=wanted.environment_id,
        python=str(folder / "bin" / "python"),
        python_version=platform.python_version(),
        platform=platform.platform(),
        source=source,
        packages=_packages_below(making),
    )
    layout.write_file(making / _ABOUT, records.dump(environment))
    shutil.rmtree(folder, ignore_errors=True)  # one that has lost its interpreter
    making.rename(folder)
    return environment


def _listed(wanted: Plan, making: Path) -> Path:
    """Write the requirements that the lock stands for, and return the file."""
    listed = making / "nbmlops-lock.txt"
    if wanted.source != UV_LOCK:
        listed.write_bytes(wanted.files[REQUIREMENTS])
        return listed
    project = making / "lock"
    project.mkdir()
    for name, data in wanted.files.items():
        (project / name).write_bytes(data)
    _uv(
        UV_LOCK,
        *("export", "--quiet", "--frozen", "--no-emit-project", "--no-header", "--no-annotate"),
        *("--project", str(project), "--python", sys.executable, "--output-file", str(listed)),
    )
    _refuse_paths(listed.read_text().splitlines(), UV_LOCK)
    return listed


def _packages_below(environment: Path) -> dict[str, str]:
    return _packages_in(str(path) for path in environment.glob("lib/python*/site-packages"))


def _uv(source: str, *arguments: str) -> None:
    import uv

    result = subprocess.run(
        [uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    words = " ".join(result.stderr.split())
    words = re.sub(r"\S*nbmlops-lock\.txt", source, words)
    if re.search(r"error sending request|dns error|Failed to fetch|network", words, re.IGNORECASE):
        raise EnvironmentUnreachable(
            f"packages of {source} are not in uv's cache and no index answers: {words[:300]}",
            "Connect once, or put the wheels into uv's cache:"
            f" `uv pip install -r {source} --target /tmp/warm`.",
        )
    alone = "uv lock" if source == UV_LOCK else f"uv pip compile {source}"
    raise EnvironmentFailed(
        f"the environment cannot be made from {source}: {words[:600]}",
        f"Correct {source}; see it alone: `{alone}`.",
    )


@contextlib.contextmanager
def _only_one(path: Path) -> Generator[None, None, None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def installed() -> dict[str, str]:
    """Return the packages of the running interpreter, by name."""
    return _packages_in(sys.path)


def _packages_in(places: Iterable[str]) -> dict[str, str]:
    """Return the packages of some folders, the first of a name standing.

    Names and versions are those of the ``.dist-info`` folders, names normalised (PEP 503, PEP 491):
    to read the metadata of some hundred packages takes as long as all the rest of a submission.
    """
    found: dict[str, str] = {}
    for place in places:
        try:
            names = sorted(path.name for path in Path(place or ".").iterdir())
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                found.setdefault(_normal(package), version)
    return dict(sorted(found.items()))


def pinned(names: Iterable[str]) -> str:
    """Return a requirements file that pins these packages and all that they need, as installed.

    No index is asked.
    """
    from packaging.requirements import Requirement

    pins: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if _normal(name) in pins:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        about = distribution.metadata  # parsed anew each time that it is asked for
        pins[_normal(name)] = about["Version"]
        for text in about.get_all("Requires-Dist") or distribution.requires or ():
            if _OF_AN_EXTRA.search(text) and " or " not in text:
                continue  # most are, and each would be parsed
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    return "\n".join(lines) + "\n"


def _normal(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def tool_requirements(more: Iterable[str] = (), cache: Path | None = None) -> str:
    """Return what the tool's side of a job needs, pinned as it is installed here.

    ``more`` are packages that a project adds, such as its object store's. With a ``cache`` it is
    read there, as long as nothing has been installed or removed since.
    """
    if cache is None:
        return _tool_requirements(more)
    told = repr((__version__, sorted(more), _installed_state()))
    kept = cache / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.txt"
    with contextlib.suppress(FileNotFoundError):
        return kept.read_text(encoding="ascii")
    found = _tool_requirements(more)
    layout.write_file(kept, found.encode("ascii"))
    return found


def _installed_state() -> list[tuple[str, int]]:
    """Return the folders that have packages in them, each with when it was changed last."""
    folders = [Path(place) for place in dict.fromkeys(sys.path)]
    found = [folder for folder in folders if next(folder.glob("*.dist-info"), None) is not None]
    return [(str(folder), folder.stat().st_mtime_ns) for folder in found]


def _tool_requirements(more: Iterable[str]) -> str:
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in importlib.metadata.requires("nbmlops") or ()]
    base = [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    missing = [name for name in more if not _is_installed(name)]
    return pinned([*base, *more]) + "".join(f"{name}\n" for name in missing)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def uv_version() -> str:
    """Return the version of uv that installs here, and so in images."""
    return importlib.metadata.version("uv")


# --- the kit: the very nbmlops that is running, as a wheel --------------------------------------


def _kit_files() -> list[tuple[str, Path]]:
    package = Path(__file__).parent
    found: list[Path] = []
    for folder, inner, names in os.walk(package):
        inner[:] = [name for name in inner if name not in ("__pycache__", "labextension")]
        found += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    return [(f"nbmlops/{path.relative_to(package).as_posix()}", path) for path in sorted(found)]


def kit_digest() -> str:
    """Return the SHA-256 over the files of the running nbmlops."""
    digest = hashlib.sha256()
    for name, path in _kit_files():
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build_kit(folder: Path) -> Path:
    """Write the running nbmlops as a wheel without dependencies and return its path.

    Made from the installed files, so it works unpublished and offline.
    """
    digest = kit_digest()
    target = folder / digest[:16] / f"nbmlops-{__version__}-py3-none-any.whl"
    if target.exists():
        return target
    about = f"nbmlops-{__version__}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: nbmlops\nVersion: {__version__}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: nbmlops\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = [(name, path.read_bytes()) for name, path in _kit_files()]
    contents += [(f"{about}/METADATA", metadata.encode()), (f"{about}/WHEEL", wheel.encode())]
    listed = "".join(f"{name},,\n" for name, _ in contents) + f"{about}/RECORD,,\n"
    contents.append((f"{about}/RECORD", listed.encode()))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents:
            archive.writestr(zipfile.ZipInfo(name, _WHEEL_TIME), data)
    temporary.replace(target)
    return target
