"""Workers and fronts as real processes, and what the tests of both need to call them."""

from __future__ import annotations

import atexit
import functools
import hashlib
import http.client
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from nbmlops import formats, predictors, schema, shortcuts, tensors
from nbmlops.records import FrontSpec, Route, RouteTable, WorkerSpec, dump

SOURCE = Path(__file__).parents[1] / "src"
COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "control-token-of-the-tests"


@functools.cache
def model(kind):
    """Return a fitted model's bytes, its schema and its training table, made once."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.datasets import load_breast_cancer, load_diabetes
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if kind == "regressor":
        table, target = load_diabetes(return_X_y=True, as_frame=True)
        made = LinearRegression()
    elif kind == "array":
        table, target = load_breast_cancer(return_X_y=True)
        table = table[:, :4]
        made = LogisticRegression(max_iter=10_000)
    elif kind == "mixed":
        table = pd.DataFrame(
            {
                "city": ["Bern", "Rome", "Oslo"] * 20,
                "age": range(60),
                "member": [True, False] * 30,
            },
        )
        target = ["yes" if age > 30 else "no" for age in range(60)]
        encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
        made = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    elif kind == "gaps":
        table = pd.DataFrame(
            {
                "city": ["Bern", None, "Oslo"] * 20,
                "age": pd.array([None, *range(59)], dtype="Int64"),
                "income": [1.5, None, 3.25, -7.0] * 15,
                "member": pd.array([True, False, None] * 20, dtype="boolean"),
                "rooms": range(60),
            },
        )
        target = [row % 3 for row in range(60)]
        made = make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["city"]),
                (SimpleImputer(missing_values=math.nan), ["age", "income", "member", "rooms"]),
            ),
            LogisticRegression(max_iter=10_000),
        )
    else:
        table, target = load_breast_cancer(return_X_y=True, as_frame=True)
        forest = RandomForestClassifier(10, random_state=0)
        made = (
            forest
            if kind == "forest"
            else make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        )
    made.fit(table, target)
    contract = schema.infer(
        table,
        target,
        classes=getattr(made, "classes_", None),
        probabilities=hasattr(made, "predict_proba"),
    )
    return formats.to_bytes(made), contract, table, made


@functools.cache
def probed(kind):
    """Return what was seen of the model when it was logged, and its sample."""
    _, contract, table, made = model(kind)
    return predictors.probe(made, contract, table)


def numeric_of(folder, kind):
    """Write the numeric form beside the model, if it has one; return what the spec says of it."""
    _, contract, _, made = model(kind)
    if probed(kind)[0].form != "numeric":
        return {}
    content = shortcuts.numeric(made, contract).to_bytes()
    (folder / "numeric.npz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"numeric_file": "numeric.npz", "numeric_digest": digest}


def until(happened, within_s=30.0, every_s=0.02):
    """Return what ``happened`` returns once it is true; fail at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        if found := happened():
            return found
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(every_s)


class Connection(http.client.HTTPConnection):
    """A connection to ``unix:/path`` or ``tcp:host:port``."""

    def __init__(self, address, timeout=30.0):
        self.address = tensors.parse_address(address)
        super().__init__(self.address.host or "localhost", self.address.port, timeout=timeout)

    def connect(self):
        if self.address.path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.address.path))

    def ask(self, method, path, body=None, headers=None):
        """Return status, headers and body of one answer."""
        self.request(method, path, body, headers or {})
        answer = self.getresponse()
        return answer.status, answer.headers, answer.read()


def ask(address, method, path, body=None, headers=None, *, timeout=30.0):
    """Send one request on a connection of its own."""
    connection = Connection(address, timeout)
    try:
        return connection.ask(method, path, body, headers)
    finally:
        connection.close()


def status_of(address, path):
    """Return the status of a GET, or 0 where nobody listens."""
    try:
        return ask(address, "GET", path, timeout=5.0)[0]
    except (OSError, http.client.HTTPException):
        return 0


class Process:
    """``python -m`` of a module with an inbox; its output is kept in a file."""

    def __init__(self, module, inbox, address, **environment):
        self.inbox, self.address = inbox, address
        self.log = inbox / f"log-{secrets.token_hex(4)}.txt"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NBMLOPS_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=clean
                | {
                    "PYTHONPATH": str(SOURCE),
                    "NBMLOPS_INBOX": str(inbox),
                    "NBMLOPS_OUTBOX": str(inbox),
                    "NBMLOPS_LISTEN": address,
                    **environment,
                },
                stdout=log,
                stderr=log,
            )

    def ready(self, path):
        """Wait until the path answers 200."""

        def is_ready():
            assert self.process.poll() is None, self.log.read_text()
            return status_of(self.address, path) == 200

        until(is_ready)
        return self

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:  # a process that runs on another core takes a moment
            until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def ended(self, within_s=30.0):
        """Return the exit code, once there is one."""
        return self.process.wait(within_s)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


def socket_path():
    """Return a short path for a socket: Unix allows some 100 bytes."""
    folder = tempfile.mkdtemp(prefix="nbmlops-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "worker.sock"


def worker_inbox(folder, kind="logistic", deployment="cancer-w1", version=3, **changes):
    """Fill an inbox for a worker."""
    content, contract, *_ = model(kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.skops").write_bytes(content)
    spec = WorkerSpec(
        deployment_id=deployment,
        model="cancer",
        version=version,
        format="skops",
        model_file="model.skops",
        model_digest=hashlib.sha256(content).hexdigest(),
        schema=contract,
        form=probed(kind)[0].form,
        sample=probed(kind)[1],
        **numeric_of(folder, kind),
    )
    (folder / "spec.json").write_bytes(dump(msgspec.structs.replace(spec, **changes)))
    return folder


def route(kind, address, deployment="cancer-w1", version=3, **changes):
    """Return the champion's route to a worker."""
    made = Route(
        deployment_id=deployment,
        role="champion",
        share=100.0,
        address=address,
        model="cancer",
        version=version,
        commit=COMMIT,
        schema=model(kind)[1],
        batches=True,
        matrix=True,
    )
    return msgspec.structs.replace(made, **changes)


def front_inbox(folder, routes, revision=1, **changes):
    """Fill an inbox for a front, whose call log lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = FrontSpec(
        endpoint="cancer",
        calls=str(folder / "calls"),
        control_digest=hashlib.sha256(TOKEN.encode()).hexdigest(),
    )
    table = RouteTable(endpoint="cancer", revision=revision, routes=tuple(routes))
    (folder / "spec.json").write_bytes(dump(msgspec.structs.replace(spec, **changes)))
    (folder / "routes.json").write_bytes(dump(table))
    return folder


def free_address():
    """Return the address of a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp:127.0.0.1:{probe.getsockname()[1]}"
