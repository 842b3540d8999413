"""Serving, against MLServer 1.7, `mlflow models serve`, and bare applications.

`python benchmarks/serving_against_mlserver.py [logistic|forest|nothing]` makes an environment with
the peers under build/ (once). All have one process that predicts, their defaults, and the same
fitted model; their answers are compared first. Ours writes its call log. The load is wrk's, over
loopback, each side in turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import title

from serving import Load, Started, free_port, load, median, needs_wrk, ours, v2

TOP = Path(__file__).parent.parent
PEERS = TOP / "build" / "mlserver-venv" / "bin"
ROUNDS, SECONDS = 3, 2.0
BARE = """
async def hello(scope, receive, send):
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"hello":"w"}'})
"""
GRANIAN = """
import asyncio
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

server = Server(
    hello, address="127.0.0.1", port=PORT, interface=Interfaces.ASGINL, http=HTTPModes.http1,
    websockets=False, log_enabled=False,
)
asyncio.run(server.serve())
"""
OURS = """
import asyncio, uvloop
from nbmlops.front.server import Server

async def serve():
    await Server(hello, 1000).listen("127.0.0.1", PORT, 1024)
    await asyncio.Event().wait()

uvloop.run(serve())
"""


def prepare() -> None:
    """Make the peers' environment, with scikit-learn and numpy of the versions that we have."""
    if PEERS.exists():
        return
    import numpy as np
    import sklearn
    import uv

    binary = uv.find_uv_bin()
    subprocess.run([binary, "venv", "--quiet", str(PEERS.parent)], check=True)
    install = [binary, "pip", "install", "--quiet", "--compile-bytecode"]
    same = [f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}"]
    # MLServer 1.7 does not start with a newer uvloop, which has no event loop before it is run.
    peers = [
        "mlserver>=1.7,<1.8",
        "mlserver-sklearn>=1.7,<1.8",
        "uvloop<0.22",
        "mlflow>=3,<4",
        "granian>=2.5",
    ]
    subprocess.run([*install, "--python", str(PEERS / "python"), *peers, *same], check=True)


def fitted(kind: str) -> tuple[Any, Any, Any]:
    """Return a fitted model, its training table and target."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    if kind == "nothing":
        table, target = pd.DataFrame({"x": [0.0, 1.0] * 50}), pd.Series([0.0, 1.0] * 50)
        model = DummyRegressor(strategy="constant", constant=0.5)
    elif kind == "forest":
        model = RandomForestClassifier(100, random_state=0)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(table, target), table, target


def mlserver(folder: Path, model: Any) -> Started:
    """Start MLServer with its defaults."""
    import joblib

    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    started = Started(free_port(), "/v2/models/bench/infer")
    settings = {
        "host": "127.0.0.1",
        "http_port": started.port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    about = {
        "name": "bench",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "v1"},
    }
    (folder / "model-settings.json").write_text(json.dumps(about))
    started.start(PEERS / "mlserver", "start", ".", cwd=folder, log=folder / "log.txt")
    return started


def mlflow(folder: Path, model: Any) -> Started:
    """Start `mlflow models serve`, in its own environment."""
    import joblib

    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    save = (
        "import joblib, mlflow.sklearn;"
        "mlflow.sklearn.save_model(joblib.load('model.joblib'), 'model',"
        " serialization_format='cloudpickle')"
    )
    subprocess.run([PEERS / "python", "-W", "ignore", "-c", save], cwd=folder, check=True)
    started = Started(free_port(), "/invocations")
    command = ("models", "serve", "-m", "model", "--env-manager", "local")
    started.start(
        *(PEERS / "mlflow", *command, "-h", "127.0.0.1", "-p", str(started.port)),
        cwd=folder,
        log=folder / "log.txt",
        PATH=f"{PEERS}:/usr/bin:/bin",
        MLFLOW_DISABLE_TELEMETRY="true",
    )
    return started


def bare(folder: Path, python: str | Path, server: str) -> Started:
    """Start a bare application on an ASGI server."""
    folder.mkdir()
    started = Started(free_port(), "/predict")
    program = BARE + server.replace("PORT", str(started.port))
    started.start(python, "-c", program, log=folder / "log.txt")
    return started


def labels(answer: bytes) -> list[float]:
    """Return the predictions of an answer of any of the servers."""
    document = json.loads(answer)
    if "predictions" in document:
        return document["predictions"]
    return [float(value) for value in document["outputs"][0]["data"]]


def agree(mine: Started, peers: dict[str, tuple[Started, bytes]], rows: Any) -> None:
    """End the benchmark where a peer answers otherwise."""
    status, content = mine.ask(v2("input", rows))
    wanted = labels(content)
    for name, (peer, _) in peers.items():
        body = v2("input", rows) if name == "MLServer" else json.dumps({"inputs": rows}).encode()
        found = labels(peer.ask(body)[1])
        if status != 200 or found != wanted:
            sys.exit(f"{name} answers otherwise: {found[:5]} and {wanted[:5]}")
    print(f"# {len(rows)} rows are answered alike by all")


def turns(servers: dict[str, tuple[Started, bytes]], connections: int) -> dict[str, Load]:
    """Return the medians of the servers, which take turns."""
    seen: dict[str, list[Load]] = {name: [] for name in servers}
    for server, body in servers.values():
        load(server, body, connections, 1.0)
    for _ in range(ROUNDS):
        for name, (server, body) in servers.items():
            seen[name].append(load(server, body, connections, SECONDS))
    return {name: median(loads) for name, loads in seen.items()}


def compare(what: str, value: float, reach: float, *, least: bool = True) -> bool:
    """Print a ratio and whether it reaches what it should."""
    good = value >= reach if least else value <= reach
    word = "at least" if least else "at most"
    print(f"  {what:52} {value:8.2f}   {word} {reach:g}: {'reached' if good else 'MISSED'}")
    return good


def throughput(
    servers: dict[str, tuple[Started, bytes]], reaches: dict[str, dict[int, float]]
) -> bool:
    """Measure at 1, 16 and 64 connections."""
    good = True
    for connections in (1, 16, 64):
        found = turns(servers, connections)
        for name, one in found.items():
            print(
                f"  {connections:3} connections  {name:18} {one.per_s:9.0f} requests/s"
                f"   p99 {one.p99_ms:8.2f} ms   {one.errors}"
            )
        mine = found["nbmlops"]
        good &= not mine.errors
        for name, reach in reaches.items():
            if connections in reach:
                ratio = mine.per_s / found[name].per_s
                good &= compare(f"requests/s against {name}", ratio, reach[connections])
            if connections == 16 and not name.startswith("hello"):
                slower = mine.p99_ms / found[name].p99_ms
                good &= compare(f"p99 against {name}", slower, 1.0, least=False)
    return good


def served(kind: str, folder: Path) -> bool:
    """Compare one model."""
    model, table, target = fitted(kind)
    rows = table.head(50).to_numpy().tolist()
    one = v2("input", rows[:1])
    frame = json.dumps({"inputs": rows[:1]}).encode()
    began_s = time.perf_counter()
    mine = ours(folder / "ours", model, table, target, "/v2/models/bench/infer")
    mine_s = mine.first_answer_s(one, began_s)
    servers: dict[str, tuple[Started, bytes]] = {"nbmlops": (mine, one)}
    good = True
    try:
        if kind == "nothing":
            hello = bare(folder / "same", sys.executable, OURS)
            servers["hello, same server"] = (hello, one)
            servers["hello, granian"] = (bare(folder / "other", PEERS / "python", GRANIAN), one)
            for name in ("hello, same server", "hello, granian"):
                servers[name][0].first_answer_s(one, time.perf_counter())
            reach = {16: 0.4, 64: 0.4}
            return throughput(servers, {"hello, same server": reach, "hello, granian": reach})
        began_s = time.perf_counter()
        peer = mlserver(folder / "mlserver", model)
        servers["MLServer"] = (peer, one)
        peer_s = peer.first_answer_s(one, began_s)
        servers["mlflow"] = (mlflow(folder / "mlflow", model), frame)
        servers["mlflow"][0].first_answer_s(frame, time.perf_counter())
        agree(mine, {name: servers[name] for name in ("MLServer", "mlflow")}, rows)
        print(f"  first good answer after {mine_s:.2f} s, MLServer {peer_s:.2f} s")
        good &= compare("spawn to first good answer", mine_s / peer_s, 0.5, least=False)
        reaches = {"MLServer": {1: 1.3, 16: 6.0, 64: 6.0}, "mlflow": {16: 12.0, 64: 12.0}}
        if kind == "forest":
            reaches = {"MLServer": {1: 4.0, 16: 20.0, 64: 20.0}, "mlflow": {}}
        good &= throughput(servers, reaches)
        print(f"  resident {mine.memory_mb():.0f} MB, MLServer {peer.memory_mb():.0f} MB")
        share = mine.memory_mb() / peer.memory_mb()
        good &= compare("resident memory, all processes", share, 1.3, least=False)
        return good
    finally:
        for server, _ in servers.values():
            server.stop()


def main() -> int:
    """Compare all models, or those that are named."""
    needs_wrk()
    (TOP / "build").mkdir(exist_ok=True)
    prepare()
    good = True
    for kind in sys.argv[1:] or ["logistic", "forest", "nothing"]:
        title(f"serving: {kind}, one row a call", ["nbmlops", "scikit-learn"])
        with tempfile.TemporaryDirectory(dir=TOP / "build") as folder:
            good &= served(kind, Path(folder))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
