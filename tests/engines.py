"""A Docker engine for the tests, and the base image that no registry has to be asked for."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

BASE = f"nbmlops-test-base:{sys.version_info.major}.{sys.version_info.minor}"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_STARTED_S = 30
# What ldd does not list, since it is loaded by name.
_BY_NAME = (
    "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libstdc++.so.6",
    "libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libm.so.6",
)  # fmt: skip
_PROGRAMS = ("/bin/sh", "/bin/true", "/usr/bin/env")


def answers():
    """Return whether an engine answers."""
    program = shutil.which("docker")
    if program is None:
        return False
    asked = subprocess.run([program, "version"], capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


def start(folder):
    """Start an engine where one is root and none is up; return its process, or ``None``."""
    if answers() or os.geteuid() != 0 or shutil.which("dockerd") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + _STARTED_S
    while not answers() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return process


def why_not():
    """Return why no test can use an engine, or ``None``."""
    try:
        import docker  # noqa: F401
    except ModuleNotFoundError:
        return "the package docker is not installed"
    if answers():
        return None
    if shutil.which("dockerd") is None:
        return "no Docker engine: make test-system installs one"
    return "no Docker engine can be started here"


def base_image():
    """Make the base image from the Python that runs this, once for the engine."""
    found = subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False)
    if found.returncode == 0:
        return BASE
    prefix = Path(sys.base_prefix)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("tmp", "etc", "root", "var/tmp"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in folder else 0o755
            tar.addfile(made)
        tar.add(prefix, str(prefix).lstrip("/"), filter=_without_tests)
        for path in sorted(_libraries(prefix)):
            tar.add(os.path.realpath(path), path.lstrip("/"))
        for program in _PROGRAMS:
            tar.add(os.path.realpath(program), program.lstrip("/"))
        for name, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/nsswitch.conf", "hosts: files dns\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    where = f"{prefix}/bin:/usr/bin:/bin"
    subprocess.run(
        ["docker", "import", "--change", f"ENV PATH={where}", "-", BASE],
        input=archive.getvalue(), check=True, capture_output=True,
    )  # fmt: skip
    return BASE


def _without_tests(entry):
    parts = Path(entry.name).parts
    left_out = {"__pycache__", "test", "tests", "idlelib", "share", "site-packages"} & {*parts}
    kept = "site-packages" in parts and {"pip", "setuptools"} & {p.split("-")[0] for p in parts}
    return entry if not left_out or kept or entry.name.endswith("site-packages") else None


def _libraries(prefix):
    """Return the shared libraries that the interpreter and its modules need, as they are named."""
    programs = [prefix / "bin" / "python3", *_PROGRAMS, *prefix.rglob("lib-dynload/*.so")]
    found = set()
    told = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
    ).stdout
    for line in told.splitlines():
        if match := re.search(r"(/\S+) \(0x", line):
            found.add(match[1])
    folders = {str(Path(path).parent) for path in found}
    for name in _BY_NAME:
        for folder in folders:
            if Path(folder, name).exists():
                found.add(str(Path(folder, name)))
    return {path for path in found if not path.startswith(str(prefix))}
