"""A Docker engine for the tests, and the base image that no registry has to be asked for."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import shutil
import signal
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
    """Start an engine where one is root and none is up; its pid is kept in the folder."""
    if answers() or os.geteuid() != 0 or shutil.which("dockerd") is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
    (folder / "dockerd.pid").write_text(str(process.pid))
    deadline = time.monotonic() + _STARTED_S
    while not answers() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)


def stop(folder, number=signal.SIGTERM):
    """End the engine that was started from this folder, and wait for it."""
    try:
        pid = int((folder / "dockerd.pid").read_text())
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError):
        return
    deadline = time.monotonic() + _STARTED_S
    while answers() and time.monotonic() < deadline:
        time.sleep(0.1)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    (folder / "dockerd.pid").unlink()
    Path("/var/run/docker.pid").unlink(missing_ok=True)


class Engine:
    """The engine of a run of tests, and the image of the tool's side."""

    def __init__(self, folder, image):
        self.folder = folder
        self.image = image

    @property
    def is_ours(self):
        return (self.folder / "dockerd.pid").exists()

    @contextlib.contextmanager
    def held(self, *, alone=False):
        """Share the engine with other tests, or have it alone."""
        with (self.folder / "engine.held").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def restart(self, number=signal.SIGTERM):
        stop(self.folder, number)
        start(self.folder)


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


def tool_image(cache):
    """Make the image of the tool's side on the base image, by the product's own recipe."""
    import docker

    from nbmlops import environment
    from nbmlops.images import building, recipe

    wheel = environment.build_kit(cache / "kits")
    bundle = Path(CA_BUNDLE)
    wanted = recipe.Recipe(
        base=base_image(),
        tool=environment.tool_requirements(),
        uv=environment.uv_version(),
        kit=(wheel.name, wheel.read_bytes()),
        ca_bundle=bundle.read_bytes() if bundle.exists() else None,
    )
    client = docker.APIClient(version="auto", timeout=600)
    reference = f"nbmlops/test:{wanted.environment_id}"
    building.ensure(client, wanted, reference, lambda _: None)
    client.close()
    return reference
