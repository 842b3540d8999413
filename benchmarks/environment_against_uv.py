"""An environment from a lock against uv's own two commands, packages in uv's cache."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import measure
import uv

from nbmlops import environment

REPEATS = 5


def main() -> None:
    """Print the figures for making an environment, and for asking for it again."""
    measure.title("environments: ensure | uv venv, uv pip install -r", ["uv"])
    lock = environment.pinned(["scikit-learn", "pandas", "ipykernel", "skops"]).encode()
    binary = uv.find_uv_bin()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listed = folder / "requirements.txt"
        listed.write_bytes(lock)

        def ours() -> None:
            shutil.rmtree(folder / "cache" / "environments", ignore_errors=True)
            wanted = environment.plan({"requirements.txt": lock})
            environment.ensure(wanted, folder / "cache", lambda _: None)

        def peer() -> None:
            shutil.rmtree(folder / "venv", ignore_errors=True)
            measure.run(binary, "venv", "--quiet", folder / "venv")
            measure.run(
                *(binary, "pip", "install", "--quiet", "--requirement", listed),
                *("--python", folder / "venv" / "bin" / "python"),
            )

        made, by_uv = measure.pairs(ours, peer, repeats=REPEATS)
        count = len(lock.splitlines())
        measure.row(f"an environment of {count} packages", made, by_uv, 1.2)

        def again() -> None:
            wanted = environment.plan({"requirements.txt": lock})
            environment.ensure(wanted, folder / "cache", lambda _: None)

        ours()
        again()
        times = sorted(measure.wall_s(again) for _ in range(REPEATS))
        measure.alone("the same once more", times[REPEATS // 2] * 1000, 50)


if __name__ == "__main__":
    main()
