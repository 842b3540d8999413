"""A snapshot of 10 changed files against git's own commands for the same commit."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import measure

from nbmlops import records, repository, snapshot

REPEATS = 7


def tree(folder: Path, files: int) -> None:
    """Make a repository of that many small files."""
    for number in range(files):
        place = folder / f"d{number % 100}" / f"e{number // 100 % 10}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}.py").write_text(f"X = {number}\n")
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@localhost")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "start")):
        measure.run(*git, *words, cwd=folder)
    measure.run("git", "update-index", "--refresh", cwd=folder)


def main() -> None:
    """Print a figure for each size."""
    version = measure.run("git", "--version").decode().strip()
    measure.title(f"snapshot: take | copied index, add -A, write-tree, commit-tree ({version})")
    for files in (10_000, 50_000):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "work"
            folder.mkdir()
            tree(folder, files)
            repo = repository.find(folder)
            if repo is None:
                raise SystemExit("git made no repository")
            count = 0

            def change(folder: Path = folder) -> None:
                nonlocal count
                count += 1
                for number in range(10):
                    (folder / f"d{number}" / "e0" / f"f{number}.py").write_text(f"Y = {count}\n")

            def ours(repo: repository.Repository = repo, temporary: str = temporary) -> None:
                snapshot.take(repo, Path(temporary) / "scratch", records.utc_now())

            def git(folder: Path = folder, temporary: str = temporary) -> None:
                index = Path(temporary) / "index"
                shutil.copy2(folder / ".git" / "index", index)
                os.environ["GIT_INDEX_FILE"] = str(index)
                try:
                    measure.run("git", "add", "-A", cwd=folder)
                    written = measure.run("git", "write-tree", cwd=folder).decode().strip()
                    measure.run(
                        *("git", "-c", "user.name=b", "-c", "user.email=b@localhost"),
                        *("commit-tree", written, "-p", "HEAD", "-m", "x"),
                        cwd=folder,
                    )
                finally:
                    del os.environ["GIT_INDEX_FILE"]

            times: list[tuple[float, float]] = []
            for _ in range(REPEATS + 1):
                change()
                first = measure.wall_s(ours)
                change()
                times.append((first, measure.wall_s(git)))
            took = sorted(one for one, _ in times[1:])[REPEATS // 2]
            peer = sorted(two for _, two in times[1:])[REPEATS // 2]
            measure.row(f"10 changed files among {files:,}", took, peer, 1.3)


if __name__ == "__main__":
    main()
