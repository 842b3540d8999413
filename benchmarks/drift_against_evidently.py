"""Drift of tables, against Evidently's DataDriftPreset and NannyML's univariate drift.

`python benchmarks/drift_against_evidently.py` makes an environment for each peer under build/
(once). The three take turns in the same call, each in a process of its own that has imported
everything before, with one thread; times are of the wall clock. Everyone's verdicts are compared:
of 20 columns two have changed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
SILENT = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}  # no peer waits for a network
TOP = Path(__file__).parent.parent
ROWS, NUMERIC, CATEGORICAL = 100_000, 15, 5
MOVED = ["n3", "c1"]
TURNS = 5
BIG_ROWS, BIG_COLUMNS = 1_000_000, 50
HOURS, HOUR_COLUMNS = 720, 50


def frame(seed: int, *, moved: bool) -> Any:
    """Return 100,000 rows of 15 numbers and 5 categories; two columns have moved, or none."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    made = {f"n{index}": rng.normal(size=ROWS) for index in range(NUMERIC)}
    names = np.array([f"category {index}" for index in range(12)])
    made |= {f"c{index}": rng.choice(names, ROWS) for index in range(CATEGORICAL)}
    if moved:
        made["n3"] += 0.5
        made["c1"] = np.where(rng.random(ROWS) < 0.3, names[0], made["c1"])
    return pd.DataFrame(made)


# --- the three ------------------------------------------------------------------------------------


class Ours:
    """nbmlops."""

    name = "nbmlops"

    def __init__(self) -> None:
        from nbmlops._version import __version__

        self.version = __version__

    def prepare(self, reference: Any) -> None:
        """Profile the training data, as `log_model` does."""
        from nbmlops.monitoring.profile import Gauge, reference_profile

        kinds = {name: "category" if name[0] == "c" else "number" for name in reference.columns}
        self._gauge = Gauge(reference_profile(reference, kinds))

    def drifted(self, reference: Any, window: Any, *, prepared: bool) -> list[str]:
        """Hold the window against it."""
        from nbmlops.monitoring import drift

        if not prepared:
            self.prepare(reference)
        tally = self._gauge.count(len(window), window)
        judged = drift.judge(self._gauge, tally)
        return [column.name for column in judged.columns if column.verdict == "drift"]


class Evidently:
    """Evidently's DataDriftPreset with its default settings."""

    name = "evidently"

    def __init__(self) -> None:
        import evidently
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        self.version = evidently.__version__
        self._dataset, self._report, self._preset = Dataset, Report, DataDriftPreset

    def prepare(self, reference: Any) -> None:
        """Nothing can be made before."""

    def drifted(self, reference: Any, window: Any, *, prepared: bool) -> list[str]:
        """Run the preset."""
        del prepared
        report = self._report([self._preset()])
        found = report.run(
            self._dataset.from_pandas(window), self._dataset.from_pandas(reference)
        ).dict()
        return _evidently_drifted(found)


def _evidently_drifted(found: dict[str, Any]) -> list[str]:
    drifted = []
    for metric in found["metrics"]:
        told = metric.get("config", {})
        column, method = told.get("column"), str(told.get("method", ""))
        if column is None or isinstance(metric["value"], dict):
            continue
        limit = float(told.get("threshold", 0.1))
        small = "p_value" in method
        if metric["value"] < limit if small else metric["value"] >= limit:
            drifted.append(column)
    return drifted


class NannyML:
    """NannyML's univariate drift with its default settings: it fits, then calculates ten chunks."""

    name = "nannyml"

    def __init__(self) -> None:
        import nannyml

        self.version = nannyml.__version__
        self._calculator = nannyml.UnivariateDriftCalculator

    def prepare(self, reference: Any) -> None:
        """Both are one thing here, as with Evidently."""

    def drifted(self, reference: Any, window: Any, *, prepared: bool) -> list[str]:
        """Fit on the reference, and calculate on the window."""
        del prepared
        fitted = self._calculator(column_names=list(reference.columns)).fit(reference)
        found = fitted.calculate(window).to_df()
        of_window = found["chunk"]["chunk"]["period"] == "analysis"
        return [
            name
            for name in window.columns
            if float(found[name]["jensen_shannon"]["value"][of_window].median()) >= 0.1
        ]


def serve(peer: Any) -> None:
    """Answer lines on standard input with times, having imported and warmed up."""
    reference, window = frame(1, moved=False), frame(2, moved=True)
    peer.prepare(reference)
    print(json.dumps({"version": peer.version}), flush=True)
    for line in sys.stdin:
        prepared = json.loads(line)["prepared"]
        began = time.perf_counter()
        found = peer.drifted(reference, window, prepared=prepared)
        took = time.perf_counter() - began
        print(json.dumps({"took_s": took, "drifted": sorted(found)}), flush=True)


# --- the benchmark --------------------------------------------------------------------------------


NEEDS = {
    "evidently": ("evidently", "pandas<3"),  # 0.7.23 cannot be imported beside pandas 3
    "nannyml": ("nannyml", "statsmodels"),  # 0.13.1 imports it, and does not ask for it
}


def interpreter(package: str) -> Path:
    """Return the interpreter of a peer's environment, made the first time."""
    python = TOP / "build" / f"{package}-venv" / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", python.parents[1]], check=True)
        subprocess.run(
            [
                *uv,
                "pip",
                "install",
                "-q",
                "--python",
                python,
                "--compile-bytecode",
                *NEEDS[package],
            ],
            check=True,
        )
    return python


class Served:
    """One of the three in a process of its own."""

    def __init__(self, python: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [python, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **THREADS, **SILENT},
        )
        self.version = self._read()["version"]

    def _read(self) -> Any:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        sys.exit("a peer has ended")

    def ask(self, *, prepared: bool) -> tuple[float, list[str]]:
        """Have it look once; return how long that took, and what it found."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prepared": prepared}) + "\n")
        self._process.stdin.flush()
        found = self._read()
        return found["took_s"], found["drifted"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def against_peers() -> None:
    """Print how long tables of 100,000 rows take the three."""
    served = {
        "nbmlops": Served(Path(sys.executable), "ours"),
        "evidently": Served(interpreter("evidently"), "evidently"),
        "nannyml": Served(interpreter("nannyml"), "nannyml"),
    }
    versions = ", ".join(f"{name} {one.version}" for name, one in served.items())
    print(f"\nDrift of {ROWS:,} x {NUMERIC + CATEGORICAL} DataFrames ({versions})", flush=True)
    times: dict[tuple[str, bool], list[float]] = {}
    verdicts: dict[str, list[str]] = {}
    for turn in range(TURNS + 1):
        for prepared in (True, False):
            for name, one in served.items():
                took, verdicts[name] = one.ask(prepared=prepared)
                if turn:  # the first time warms up
                    times.setdefault((name, prepared), []).append(took)
    for one in served.values():
        one.close()
    middle = {key: statistics.median(values) for key, values in times.items()}
    for prepared, reaches in ((True, (1 / 75, 1 / 20)), (False, (1 / 12, 1 / 4))):
        what = "reference profiled before" if prepared else "reference profiled in the call"
        for peer, reach in zip(("evidently", "nannyml"), reaches, strict=True):
            measure.row(
                f"{what}, against {peer}",
                middle["nbmlops", prepared],
                middle[peer, prepared],
                reach,
            )
    for name, found in verdicts.items():
        print(f"  {name:10} says drifted: {', '.join(found) or 'none'}; moved: {', '.join(MOVED)}")


BIG = """
import json, sys, time
from pathlib import Path
import numpy, scipy.special, pyarrow.parquet
from nbmlops import monitors
from nbmlops.monitors import files
from nbmlops.records import Budget, utc_now
warm, window, reference = map(Path, sys.argv[1:])
budget = Budget(false_alarms=1, windows=100)
now = utc_now()
files.compare(warm, warm, budget=budget, created_at=now)
def peak_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before_kb = peak_kb()
from nbmlops.monitoring.profile import Gauge
then = files.opened(reference)
from nbmlops.monitors import bare
began = time.perf_counter()
report = bare.answered(files.opened(window), then, target=None, prediction=None, model="x",
                       digest="x", budget=budget, created_at=now)
took = time.perf_counter() - began
print(json.dumps({"took_s": took, "mib": (peak_kb() - before_kb) / 1024,
                  "drifted": [c.name for c in report.columns if c.verdict == "drift"]}))
"""
READ = """
import sys, time, json
import pyarrow.parquet as pq
pq.read_table(sys.argv[1], use_threads=False)
began = time.perf_counter()
pq.read_table(sys.argv[2], use_threads=False)
print(json.dumps({"took_s": time.perf_counter() - began}))
"""


def from_parquet(folder: Path) -> None:
    """Print what a file of a million rows takes, in one row group and in several."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    table = pa.table({f"x{index}": rng.normal(size=BIG_ROWS) for index in range(BIG_COLUMNS)})
    small = folder / "small.parquet"
    pq.write_table(table.slice(0, 2000), small)
    train = folder / "train.parquet"
    pq.write_table(table.slice(0, 100_000), train)
    print(f"\n{BIG_ROWS:,} x {BIG_COLUMNS} from Parquet (pyarrow {pa.__version__})", flush=True)
    for what, group in (("in one row group", BIG_ROWS), ("in row groups of 131,072", 1 << 17)):
        big = folder / f"big-{group}.parquet"
        pq.write_table(table, big, row_group_size=group)
        environment = {**os.environ, **THREADS}

        def told(script: str, *words: Path, environment: Any = environment) -> Any:
            command = [sys.executable, "-c", script, *map(str, words)]
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            return json.loads(done.stdout)

        ours = [told(BIG, small, big, train) for _ in range(3)]
        peer = [told(READ, small, big) for _ in range(3)]
        middle = [statistics.median(one["took_s"] for one in found) for found in (ours, peer)]
        measure.row(f"{what}, against read_table, 100,000 rows profiled", *middle, 3.0)
        measure.alone(
            f"{what}: peak memory above imports", max(one["mib"] for one in ours), 300, unit="MiB"
        )


def live() -> None:
    """Print what a window of calls and a month of hours take, in CPU time."""
    import numpy as np

    from nbmlops.monitoring import drift, profile
    from nbmlops.monitoring.profile import Gauge, Tally
    from nbmlops.records import Prediction, dump, load

    rng = np.random.default_rng(0)
    names = [f"x{index}" for index in range(HOUR_COLUMNS)]
    train = {name: rng.normal(size=20_000) for name in names}
    gauge = Gauge(
        profile.reference_profile(train, dict.fromkeys(names, "number"), ["a", "b"] * 10_000)
    )

    def hour() -> tuple[list[dict[str, float]], list[Prediction]]:
        rows = rng.normal(size=(1000, HOUR_COLUMNS)).tolist()
        answers = [Prediction(label="ab"[index % 2]) for index in range(1000)]
        return [dict(zip(names, row, strict=True)) for row in rows], answers

    calls = hour()
    gauge.calls(*calls)
    print(f"\nA live monitor of {HOUR_COLUMNS} columns", flush=True)
    took = statistics.median(measure.cpu_s(lambda: gauge.calls(*calls)) for _ in range(9))
    measure.alone("profile of a window of 1,000 calls, CPU", took * 1000, 20)
    kept = [dump(gauge.calls(*hour())) for _ in range(8)] * (HOURS // 8)
    drift.judge(gauge, profile.merge([load(one, Tally) for one in kept[:2]]))

    def month() -> None:
        drift.judge(gauge, profile.merge([load(one, Tally) for one in kept]))

    took = statistics.median(measure.cpu_s(month) for _ in range(5))
    measure.alone(f"{HOURS} hours loaded, merged and answered, CPU", took * 1000, 300)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve({"ours": Ours, "evidently": Evidently, "nannyml": NannyML}[sys.argv[1]]())
    else:
        import measure

        against_peers()
        with tempfile.TemporaryDirectory() as made:
            from_parquet(Path(made))
        live()
