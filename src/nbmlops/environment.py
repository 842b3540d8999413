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
import zipfile
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nbmlops import layout, records
from nbmlops._version import __version__
from nbmlops.errors import EnvironmentFailed, EnvironmentUnreachable
from nbmlops.records import Environment

LOCK_FILE = "requirements.txt"
_ABOUT = "nbmlops-environment.json"
_WHEEL_TIME = (2020, 1, 1, 0, 0, 0)  # the same sources give the same wheel


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment is to be made of; its id is known before anything is made."""

    environment_id: str
    lock: bytes | None
    requirements: tuple[str, ...]


def plan(lock: bytes | None) -> Plan:
    """Return what the environment for this lock is made of; ``None`` means that there is no lock.

    The id covers the lock, the kit, the interpreter and the platform.
    """
    if lock is None:
        packages = installed()
        text = msgspec.json.encode([sys.executable, sorted(packages.items())])
        return Plan(f"e-{hashlib.sha256(text).hexdigest()[:16]}", None, ())
    _refuse_paths(lock)
    requirements = ["ipykernel", "msgspec"]
    if re.search(rb"(?im)^\s*scikit[-_.]learn\b", lock):
        requirements.append("skops")
    covered = [
        hashlib.sha256(lock).hexdigest(),
        requirements,
        kit_digest(),
        platform.python_version(),
        sys.implementation.cache_tag,
        platform.machine(),
        sys.platform,
    ]
    digest = hashlib.sha256(msgspec.json.encode(covered)).hexdigest()
    return Plan(f"e-{digest[:16]}", lock, tuple(requirements))


def _refuse_paths(lock: bytes) -> None:
    """Refuse lines that mean other files: the id would not cover what they say."""
    for number, line in enumerate(lock.decode(errors="replace").splitlines(), 1):
        word = line.strip()
        if re.match(
            r"(-e|--editable|-r|--requirement|-c|--constraint)\b|\.{0,2}/|\.+$|file:", word
        ) or (re.search(r"@\s*(file:|\.{0,2}/)", word)):
            raise EnvironmentFailed(
                f"{LOCK_FILE} line {number} points at other files: {word[:80]}",
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
    if wanted.lock is None:
        return Environment(
            environment_id=wanted.environment_id,
            python=sys.executable,
            python_version=platform.python_version(),
            platform=platform.platform(),
            source=None,
            packages=installed(),
        )
    folder = cache / "environments" / wanted.environment_id
    if (found := _read(folder)) is not None:
        return found
    with _only_one(folder.with_suffix(".lock")):
        if (found := _read(folder)) is not None:
            return found
        say(f"making the environment {wanted.environment_id} from {LOCK_FILE} (once)")
        making = folder.with_name(f"{folder.name}.making")
        try:
            return _make(wanted, wanted.lock, making, folder, cache)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _read(folder: Path) -> Environment | None:
    try:
        found = records.load((folder / _ABOUT).read_bytes(), Environment)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if Path(found.python).exists() else None


def _make(wanted: Plan, lock: bytes, making: Path, folder: Path, cache: Path) -> Environment:
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    kit = build_kit(cache / "kits")
    python = making / "bin" / "python"
    _uv("venv", "--quiet", "--relocatable", "--python", sys.executable, str(making))
    listed = making / "nbmlops-lock.txt"
    listed.write_bytes(lock)
    install = ("pip", "install", "--quiet", "--python", str(python))
    _uv(*install, "--requirement", str(listed), *wanted.requirements)
    _uv(*install, "--no-deps", str(kit))
    environment = Environment(
        environment_id=wanted.environment_id,
        python=str(folder / "bin" / "python"),
        python_version=platform.python_version(),
        platform=platform.platform(),
        source=LOCK_FILE,
        packages=_packages_of(python),
    )
    layout.write_file(making / _ABOUT, records.dump(environment))
    shutil.rmtree(folder, ignore_errors=True)  # one that has lost its interpreter
    making.rename(folder)
    return environment


def _packages_of(python: Path) -> dict[str, str]:
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    output = subprocess.run(
        [python, "-I", "-c", program], check=True, capture_output=True, timeout=60
    ).stdout
    return dict(sorted(msgspec.json.decode(output, type=dict[str, str]).items()))


def _uv(*arguments: str) -> None:
    import uv

    result = subprocess.run(
        [uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    words = " ".join(result.stderr.split())
    words = re.sub(r"\S*nbmlops-lock\.txt", LOCK_FILE, words)
    if re.search(r"error sending request|dns error|Failed to fetch|network", words, re.IGNORECASE):
        raise EnvironmentUnreachable(
            f"packages of {LOCK_FILE} are not in uv's cache and no index answers: {words[:300]}",
            "Connect once, or put the wheels into uv's cache:"
            f" `uv pip install -r {LOCK_FILE} --target /tmp/warm`.",
        )
    raise EnvironmentFailed(
        f"the environment cannot be made from {LOCK_FILE}: {words[:600]}",
        f"Correct {LOCK_FILE}; see it alone: `uv pip compile {LOCK_FILE}`.",
    )


@contextlib.contextmanager
def _only_one(path: Path) -> Generator[None, None, None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def installed() -> dict[str, str]:
    """Return the packages of the running interpreter, by name."""
    found = {
        distribution.name: distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.name
    }
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
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        canonical = re.sub(r"[-_.]+", "-", distribution.name).lower()
        if canonical in pins:
            continue
        pins[canonical] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    return "\n".join(lines) + "\n"


# --- the kit: the very nbmlops that is running, as a wheel --------------------------------------


def _kit_files() -> list[tuple[str, Path]]:
    package = Path(__file__).parent
    return [
        (f"nbmlops/{path.relative_to(package).as_posix()}", path)
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and path.suffix != ".pyc"
        and "labextension" not in path.relative_to(package).parts
        and "__pycache__" not in path.parts
    ]


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
