"""What the benchmarks of serving share: our front and worker as processes, a load, a memory."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nbmlops import formats, predictors, records, schema, shortcuts

COMMIT = "c0ffee" * 6 + "c0ff"


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Started:
    """Processes that serve one model on one port."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str | Path, log: Path, cwd: Path | None = None, **more: str) -> None:
        """Start a process."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NBMLOPS_")}
        with log.open("ab") as file:
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    cwd=cwd,
                    env=environ | more,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            )

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and body of one prediction, 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def first_answer_s(self, body: bytes, began_s: float, within_s: float = 120.0) -> float:
        """Wait for the first good answer; return the seconds since ``began_s``."""
        while self.ask(body)[0] != 200:
            if time.perf_counter() - began_s > within_s:
                sys.exit(f"nothing good was answered on port {self.port} in {within_s:g} s")
            time.sleep(0.01)
        return time.perf_counter() - began_s

    def memory_mb(self) -> float:
        """Return the resident memory of all its processes."""
        total = 0
        for started in self.processes:
            root = psutil.Process(started.pid)
            for process in (root, *root.children(recursive=True)):
                total += process.memory_info().rss
        return total / 1e6

    def stop(self) -> None:
        """Kill all of them."""
        for started in self.processes:
            for process in psutil.Process(started.pid).children(recursive=True):
                process.kill()
            started.kill()
            started.wait()


def ours(folder: Path, model: Any, table: Any, target: Any, path: str) -> Started:
    """Start our front and worker for a fitted model, as a deployment does."""
    contract = schema.infer(
        table,
        target,
        classes=getattr(model, "classes_", None),
        probabilities=hasattr(model, "predict_proba"),
    )
    probe, sample = predictors.probe(model, contract, table)
    content = formats.to_bytes(model)
    sockets = Path(tempfile.mkdtemp(prefix="nbmlops-bench-"))
    address = f"unix:{sockets / 'worker.sock'}"
    worker, front = folder / "worker", folder / "front"
    worker.mkdir(parents=True)
    front.mkdir()
    (worker / "model.skops").write_bytes(content)
    numeric: dict[str, Any] = {}
    if probe.form == "numeric" and (arrays := shortcuts.numeric(model, contract)):
        (worker / "numeric.npz").write_bytes(arrays.to_bytes())
        digest = hashlib.sha256(arrays.to_bytes()).hexdigest()
        numeric = {"numeric_file": "numeric.npz", "numeric_digest": digest}
    spec = records.WorkerSpec(
        deployment_id="bench-w1",
        model="bench",
        version=1,
        format="skops",
        model_file="model.skops",
        model_digest=hashlib.sha256(content).hexdigest(),
        schema=contract,
        form=probe.form,
        sample=sample,
        **numeric,
    )
    (worker / "spec.json").write_bytes(records.dump(spec))
    route = records.Route(
        deployment_id="bench-w1",
        role="champion",
        share=100.0,
        address=address,
        model="bench",
        version=1,
        commit=COMMIT,
        schema=contract,
        batches=probe.independent,
        matrix=True,
    )
    table_of = records.RouteTable(endpoint="bench", revision=1, routes=(route,))
    (front / "routes.json").write_bytes(records.dump(table_of))
    about = records.FrontSpec(endpoint="bench", calls=str(front / "calls"), control_digest="0" * 64)
    (front / "spec.json").write_bytes(records.dump(about))
    started = Started(free_port(), path)
    for module, inbox, listen in (
        ("nbmlops.worker", worker, address),
        ("nbmlops.front", front, f"tcp:127.0.0.1:{started.port}"),
    ):
        started.start(
            *(sys.executable, "-m", module),
            log=folder / "log.txt",
            NBMLOPS_INBOX=str(inbox),
            NBMLOPS_OUTBOX=str(inbox),
            NBMLOPS_LISTEN=listen,
        )
    return started


# --- load ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What one run of wrk has seen."""

    per_s: float
    p99_ms: float
    errors: str


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def load(started: Started, body: bytes, connections: int, seconds: float) -> Load:
    """Send the same request again and again over some connections."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
        script.write(f"wrk.body = [==[{body.decode()}]==]\n")
        script.flush()
        url = f"http://127.0.0.1:{started.port}{started.path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
        done = subprocess.run([*command, "-s", script.name, url], capture_output=True, check=True)
    text = done.stdout.decode()
    found = re.search(r"99%\s+([0-9.]+)(us|ms|s)", text)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    bad = re.search(r"(Non-2xx.*|Socket errors.*)", text)
    if found is None or rate is None:
        sys.exit(f"wrk says nothing of use:\n{text}")
    return Load(
        float(rate[1]), float(found[1]) * _UNITS[found[2]], "" if bad is None else bad[1].strip()
    )


def median(loads: Sequence[Load]) -> Load:
    """Return the medians of several runs; errors of all are kept."""
    return Load(
        statistics.median(one.per_s for one in loads),
        statistics.median(one.p99_ms for one in loads),
        "; ".join(sorted({one.errors for one in loads} - {""})),
    )


def needs_wrk() -> None:
    """End the benchmark where the load generator is missing."""
    if shutil.which("wrk") is None:
        sys.exit("the load generator is missing: `make test-system` installs Debian's wrk")


def v2(name: str, rows: Any) -> bytes:
    """Return rows as the JSON body of a V2 call: one matrix."""
    shape = [len(rows), len(rows[0])]
    data = [float(value) for row in rows for value in row]
    tensor = {"name": name, "shape": shape, "datatype": "FP64", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()
