"""The workspace: a project with all its keepers, opened where somebody stands."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nbmlops import layout, project, records, snapshot
from nbmlops.artifacts import Artifacts
from nbmlops.errors import LauncherUnavailable, NbmlopsError, NoGit, StoreUnavailable, nearest
from nbmlops.launchers import Launcher
from nbmlops.layout import Home
from nbmlops.project import Settings
from nbmlops.repository import Repository

if TYPE_CHECKING:
    from nbmlops.store import Store

LAUNCHERS = ("local", "docker", "kubernetes")
# Far from this machine: images come from a registry, a front has an address that is not ours and
# asks for a token, a look is a call, many runs may be one job.
FAR = ("kubernetes",)
IN_CONTAINERS = ("docker", "kubernetes")  # what they run is in an image
# Whose jobs are followed by the clone that started them: what it knows of them lies in its home.
OF_THIS_CLONE = ("local", "docker", "kubernetes")
# Held, shared, by whoever is about to name artifacts in the store; alone by who removes some.
NAMING = "naming"


class StartedElsewhere(NbmlopsError):
    """What was started by another clone is asked to do what that clone alone can."""

    code = "started-elsewhere"
    exit_code = 5


def _silent(_: str) -> None:
    return None


class Workspace:
    """An open project. The store is opened when it is first used."""

    def __init__(
        self,
        root: Path,
        settings: Settings,
        repo: Repository,
        home: Home,
        *,
        environ: Mapping[str, str],
        now: Callable[[], datetime] = records.utc_now,
        say: Callable[[str], None] = _silent,
        warn: Callable[[str], None] = _silent,
    ) -> None:
        self.root = root
        self.settings = settings
        self.repo = repo
        self.home = home
        self.environ = environ
        self.now = now
        self.say = say
        self.warn = warn
        self.artifacts = Artifacts(
            environ.get("NBMLOPS_ARTIFACTS_URL") or settings.artifacts.url or home.artifacts,
            options=settings.artifacts.options,
            cache=home.artifact_cache,
        )
        self._store: Store | None = None
        self._launchers: dict[str, Launcher] = {}
        self._place: str | None = None

    @property
    def store(self) -> Store:
        """The store, opened on first use."""
        if self._store is None:
            from nbmlops.store import Store

            url = self.environ.get("NBMLOPS_STORE_URL") or self.settings.store.url
            # The file is the repository's own; a database that is named may be shared.
            self._store = (
                Store(url, project=self.settings.project.name) if url else Store(self.home.store)
            )
        return self._store

    @property
    def cache(self) -> Path:
        """The folder of environments, shared by all projects of this user."""
        return layout.cache_dir(self.environ)

    @property
    def home_is_own(self) -> bool:
        """Whether home is the repository's own, so that no other home has refs in it."""
        return self.home.root.is_relative_to(self.repo.common_dir)

    @property
    def artifacts_are_own(self) -> bool:
        """Whether artifacts are kept in home, where no other clone keeps any."""
        named = self.environ.get("NBMLOPS_ARTIFACTS_URL") or self.settings.artifacts.url
        return not named

    @property
    def project_dir(self) -> str:
        """The project's folder within its repository, ``.`` for the top."""
        return self.root.relative_to(self.repo.top).as_posix()

    def reaches(self, launcher: str, place: str | None) -> bool:
        """Return whether the jobs that a clone has started by a launcher are seen from here.

        A store may be one for many clones, and a job of a machine is seen by the clone that
        started it alone: for others it would look lost. Records without a place are older than
        places, and ours.
        """
        if place is None or launcher not in OF_THIS_CLONE:
            return True
        if self._place is None:
            with contextlib.suppress(FileNotFoundError):
                self._place = self.home.place.read_text(encoding="ascii").strip()
        return place == self._place

    def launcher(self, name: str) -> Launcher:
        """Return the launcher of that name.

        Raises
        ------
        LauncherUnavailable
            When there is none.
        """
        if name not in LAUNCHERS:
            raise LauncherUnavailable(f"there is no launcher `{name}`", nearest(name, LAUNCHERS))
        if name not in self._launchers:
            self._launchers[name] = self._made(name)
        return self._launchers[name]

    def _made(self, name: str) -> Launcher:
        if name == "docker":
            from nbmlops.launchers.docker import DockerLauncher

            return DockerLauncher(self.home.container_jobs, self.owner, self.environ)
        if name == "kubernetes":
            from nbmlops.launchers.kubernetes.launcher import KubernetesLauncher

            return KubernetesLauncher(
                self.settings.kubernetes, self.owner, self.home.cluster_jobs, self.environ
            )
        from nbmlops.launchers.local import LocalLauncher

        return LocalLauncher(self.home.local_jobs)

    @property
    def owner(self) -> str:
        """By what the jobs of this clone are known where others have jobs as well."""
        return hashlib.sha256(self.place().encode()).hexdigest()[:10]

    def place(self) -> str:
        """Return the id of this clone, drawn when it is first asked for."""
        path = self.home.place
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="ascii").strip()
        with self.exclusively("place"):
            if not path.exists():
                layout.write_file(path, secrets.token_hex(16).encode())
            return path.read_text(encoding="ascii").strip()

    def launchers(self) -> list[Launcher]:
        """Return the launchers that this project has used."""
        used = {
            "local": True,
            "docker": self.home.container_jobs.is_dir(),
            "kubernetes": self.home.cluster_jobs.is_dir(),
        }
        return [self.launcher(name) for name in LAUNCHERS if used[name]]

    @contextlib.contextmanager
    def exclusively(
        self, name: str, *, wait: bool = True, shared: bool = False
    ) -> Generator[bool, None, None]:
        """Hold a lock of this project while the block runs.

        Others wait; or, with ``wait`` false, run the block with ``False`` and without the lock.
        Those who hold it ``shared`` do not wait for each other.
        """
        path = self.home.root / "locks" / layout.checked_job(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(file, how | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def close(self) -> None:
        """Close what was opened."""
        if self._store is not None:
            self._store.close()


def _claim(home: Home, repo: Repository) -> None:
    """Keep a home outside of the repository's own folder for one repository, and out of git.

    Raises
    ------
    StoreUnavailable
        When another repository has it.
    """
    if home.root.is_relative_to(repo.common_dir):
        return
    mark = home.root / "repository"
    if not mark.exists():
        layout.write_file(mark, str(repo.common_dir).encode())
        layout.write_file(home.root / ".gitignore", b"*\n")
    owner = mark.read_text()
    if owner != str(repo.common_dir):
        raise StoreUnavailable(
            f"{home.root} is the home of {owner}",
            f"Set NBMLOPS_HOME to another folder; or, if you moved the repository, write"
            f" {repo.common_dir} into {mark}.",
        )


def open_at(
    start: Path,
    *,
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] = _silent,
    warn: Callable[[str], None] = _silent,
) -> Workspace:
    """Open the project at or above ``start``.

    Raises
    ------
    NoProject
        When there is no ``nbmlops.toml``.
    NoGit
        When the project is in no git repository.
    InvalidSettings
        When ``nbmlops.toml`` is wrong.
    """
    environ = os.environ if environ is None else environ
    start = start.resolve()
    root = layout.project_root(start)
    if root is None:
        raise project.no_project(start)
    settings = project.read(root)
    repo = snapshot.repository_at(root)
    if repo is None:
        raise NoGit(
            f"{root} is in no git repository; a commit stands at the start of every run",
            f"Make one: `git -C {root} init`.",
        )
    home = layout.home_of(repo.common_dir, environ)
    _claim(home, repo)
    return Workspace(root, settings, repo, home, environ=environ, say=say, warn=warn)
