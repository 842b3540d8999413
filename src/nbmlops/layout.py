"""The name of every file, git ref and job variable; nothing else spells them.

Home is ``$NBMLOPS_HOME``, else ``<git common dir>/nbmlops``: ``git clean`` cannot take it, work
trees share it, and nothing of it is ever committed.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbmlops.errors import InvalidName

SETTINGS_FILE = "nbmlops.toml"

# What a service of continuous integration reads, from the top of a repository.
WORKFLOW_FILES = {"github": ".github/workflows/nbmlops.yml", "gitlab": ".gitlab-ci.yml"}

SNAPSHOT_REFS = "refs/nbmlops/snapshots"
LEDGER_REF = "refs/nbmlops/ledger"
REMOTE_REFS = "refs/nbmlops/remotes"

# Set by a launcher for every job, in the environment of its program.
INBOX_VARIABLE = "NBMLOPS_INBOX"
OUTBOX_VARIABLE = "NBMLOPS_OUTBOX"
LISTEN_VARIABLE = "NBMLOPS_LISTEN"
ATTEMPT_VARIABLE = "NBMLOPS_ATTEMPT"
# Set by the runner, in the environment of the notebook's kernel; nothing else marks a job.
JOB_VARIABLE = "NBMLOPS_JOB"
TRACKING_VARIABLE = "NBMLOPS_TRACKING"
PIPELINE_VARIABLE = "NBMLOPS_PIPELINE"
PROJECT_VARIABLE = "NBMLOPS_PROJECT"
DATA_VARIABLE = "NBMLOPS_DATA"

# Files of a job's inbox and outbox.
SPEC_FILE = "spec.json"
JOB_FILE = "job.json"
PARTS_FOLDER = "parts"  # the specs of a batch, by their indexes
EACH_FOLDER = "each"  # what only one part of a batch needs, by its index
SCORING_FILE = "scoring.json"
PROFILE_FILE = "profile.json"
PERFORMANCE_FILE = "performance.json"
SEGMENTS_FOLDER = "segments"  # of the call log, to be counted by a job
SOURCE_FILE = "source.tar"
ROUTES_FILE = "routes.json"
TOKEN_FILE = "token"  # noqa: S105 the file's name
RESULT_FILE = "result.json"
EVENTS_FILE = "events.jsonl"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, sorts as it counts


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe as a DNS label, a file and a git ref, or refuse it.

    Raises
    ------
    InvalidName
        For anything but 1 to 40 lower-case letters, digits and inner hyphens.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:60]!r} cannot be the name of a {what}",
            "Use 1 to 40 lower-case letters, digits and hyphens, such as `cancer` or `churn-eu`.",
            name=name[:200],
        )
    return name


def is_digest(text: str) -> bool:
    """Return whether the text is a SHA-256 in hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def checked_digest(digest: str) -> str:
    """Return a SHA-256 in hexadecimal, or refuse it."""
    if not is_digest(digest):
        raise InvalidName(f"{digest[:80]!r} is not a SHA-256 digest", "Copy it from `--json`.")
    return digest


def _base32(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, rest = divmod(number, 32)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def new_id(prefix: str, now_s: float | None = None) -> str:
    """Return a fresh id that sorts by time within its prefix: ``train-0v5m3k2q9xyz``.

    Seven characters count seconds, five are random: 33 million ids a second.
    """
    seconds = int(time.time() if now_s is None else now_s)
    return f"{prefix[:40]}-{_base32(seconds, 7)}{_base32(secrets.randbits(25), 5)}"


def seconds_of(made: str) -> int | None:
    """Return when an id was drawn, in seconds; ``None`` for what :func:`new_id` has not made.

    >>> seconds_of(new_id("s", 1790000000))
    1790000000
    """
    found = re.fullmatch(rf".*-([{_ALPHABET}]{{7}})[{_ALPHABET}]{{5}}", made)
    if found is None:
        return None
    number = 0
    for letter in found[1]:
        number = 32 * number + _ALPHABET.index(letter)
    return number


def project_root(start: Path) -> Path | None:
    """Return the nearest folder at or above ``start`` that holds ``nbmlops.toml``."""
    for folder in (start, *start.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    return None


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the user's cache folder, where environments are shared by all projects."""
    if chosen := environ.get("NBMLOPS_CACHE"):
        return Path(chosen)
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nbmlops"


def socket_dir() -> Path:
    """Return a short private folder for Unix sockets, whose paths may have 100 bytes only.

    Raises
    ------
    InvalidName
        When a folder of that name belongs to somebody else.
    """
    folder = Path(tempfile.gettempdir()) / f"nbmlops-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise InvalidName(
            f"{folder} is not private to you",
            f"Remove it (`rm -r {folder}`), or set TMPDIR to a folder of your own.",
        )
    return folder


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The folders of one job: what goes in, what comes out, where it works."""

    root: Path

    @property
    def inbox(self) -> Path:
        """What the job is given; never changed once launched, but for a front's routes."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """What the job leaves, a folder for each attempt."""
        return self.root / "outbox"

    def result(self, attempt: str) -> Path:
        """Return the file that an attempt writes last."""
        return self.outbox / checked_name(attempt, "attempt") / RESULT_FILE


@dataclass(frozen=True, slots=True)
class Home:
    """Where a project keeps what it makes."""

    root: Path

    @property
    def store(self) -> Path:
        """The SQLite file of the store."""
        return self.root / "store.sqlite"

    @property
    def artifacts(self) -> Path:
        """Bytes by digest."""
        return self.root / "artifacts"

    @property
    def artifact_cache(self) -> Path:
        """Copies of bytes that are kept elsewhere; may be removed at any time."""
        return self.root / "cache"

    @property
    def data_checks(self) -> Path:
        """What was found in files of data, by the schema; may be removed at any time."""
        return self.artifact_cache / "checks"

    def monitored(self, deployment_id: str) -> Path:
        """Return where the counts of a deployment's calls are; may be removed at any time."""
        return self.artifact_cache / "monitoring" / checked_name(deployment_id, "deployment")

    @property
    def calls(self) -> Path:
        """The call log, a folder for each deployment."""
        return self.root / "calls"

    def actuals(self, endpoint: str) -> Path:
        """Return the folder of the truths that came for an endpoint's calls."""
        return self.root / "actuals" / checked_name(endpoint, "endpoint")

    @property
    def place(self) -> Path:
        """The file with the id by which the ledger tells this clone from others."""
        return self.root / "place"

    @property
    def unsettled(self) -> Path:
        """The file that is there while the store has yet to follow the ledger."""
        return self.root / "unsettled"

    @property
    def alerts(self) -> Path:
        """The file with a line of JSON for each alert that was raised, changed or over."""
        return self.root / "alerts.jsonl"

    @property
    def local_jobs(self) -> Path:
        """What the local launcher knows of its jobs."""
        return self.root / "local"

    @property
    def container_jobs(self) -> Path:
        """What the Docker launcher knows of its jobs."""
        return self.root / "docker"

    @property
    def cluster_jobs(self) -> Path:
        """What the Kubernetes launcher knows of its jobs."""
        return self.root / "kubernetes"

    @property
    def worker_key(self) -> Path:
        """The key that the tokens of workers on TCP follow from."""
        return self.root / "tokens" / "workers.key"

    @property
    def scratch(self) -> Path:
        """Files that live as long as the command that makes them."""
        return self.root / "scratch"

    def control_token(self, endpoint: str) -> Path:
        """Return the file with the token that lets the tool change an endpoint's routes."""
        return self.root / "tokens" / checked_name(endpoint, "endpoint")

    def access_token(self, endpoint: str) -> Path:
        """Return the file with the token that an endpoint's callers bear beyond loopback."""
        return self.root / "tokens" / f"{checked_name(endpoint, 'endpoint')}.access"

    def batches_of(self, sweep_id: str) -> list[Path]:
        """Return the folders of the jobs that ran a sweep's trials together."""
        return list((self.root / "jobs").glob(f"{checked_job(sweep_id)}-b*"))

    @property
    def launcher_folders(self) -> tuple[Path, ...]:
        """What each launcher knows of its jobs, a folder for each."""
        return (self.local_jobs, self.container_jobs, self.cluster_jobs)

    def job(self, name: str) -> JobPaths:
        """Return the folders of the job of that name."""
        return JobPaths(self.root / "jobs" / checked_job(name))


def checked_job(name: str) -> str:
    """Return a job's name if it is safe as a DNS label (63 characters), or refuse it."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InvalidName(f"{name[:80]!r} is not the name of a job", "Copy it from `nbmlops runs`.")
    return name


def spec_of(inbox: Path, part: str | None) -> Path:
    """Return the file that says what a job, or a part of a batch (``i7``), is to do."""
    index = index_of(part)
    return inbox / SPEC_FILE if index is None else inbox / PARTS_FOLDER / f"{index}.json"


def index_of(part: str | None) -> int | None:
    """Return the number of a part of a batch (``i7``); ``None`` for other attempts."""
    return int(part[1:]) if part and re.fullmatch(r"i\d{1,6}", part) else None


def is_id(text: str) -> bool:
    """Return whether the text can be the id of a run or a sweep, or the beginning of one."""
    return re.fullmatch(r"[a-z0-9-]{1,63}", text) is not None


def home_of(git_dir: Path, environ: Mapping[str, str]) -> Home:
    """Return the home of the repository whose common git folder is ``git_dir``."""
    chosen = environ.get("NBMLOPS_HOME")
    return Home(Path(chosen).absolute() if chosen else git_dir / "nbmlops")


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is whole or absent: temporary name, fsync, rename, fsync.

    It belongs to whom the one belonged that it replaces: what root gives a container stays its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0 and path.exists():
            found = path.stat()
            os.chown(temporary, found.st_uid, found.st_gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
