"""Overload: what accepted calls wait, and how many are answered, against the saturated endpoint.

Each client, on this same machine, sends its next call when the last was answered or refused,
without the pause that it is asked for. The endpoint is saturated by as many clients as calls may
wait for a worker; overload is ten and fifty times as many. One model takes 10 ms for a batch, the
other hardly any time, so that refusing a call costs about as much as answering one.

    python benchmarks/overload_against_saturation.py [SECONDS]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from serving import model, route
from test_front import World

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
LIMIT = 128  # calls that wait for one worker


@dataclass
class Load:
    """What became of the calls."""

    took_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.took_s, n=100)[98]

    @property
    def rate(self) -> float:
        return len(self.took_s) / self.seconds

    def told(self, what: str) -> None:
        refused = sum(self.statuses.values()) - self.statuses[200]
        print(
            f"  {what:34} answered {self.rate:7.0f}/s, refused {refused / self.seconds:7.0f}/s,"
            f" p50 {statistics.median(self.took_s) * 1000:7.1f} ms,"
            f" p99 {self.p99_s * 1000:7.1f} ms   {dict(sorted(self.statuses.items()))}",
            flush=True,
        )


class Connection:
    """A kept connection that asks one thing at a time."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port, self.request = port, request
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, load: Load) -> None:
        began_s = time.perf_counter()
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            assert self.reader is not None
            self.writer.write(self.request)
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            lower = head.lower()
            at = lower.index(b"content-length: ") + 16
            await self.reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
        except (OSError, asyncio.IncompleteReadError):
            load.statuses[0] += 1
            self.close()
            await asyncio.sleep(0.01)
            return
        load.statuses[status] += 1
        if status == 200:
            load.took_s.append(time.perf_counter() - began_s)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def clients(port: int, request: bytes, count: int) -> Load:
    """Let so many clients call one after the other."""
    load = Load()
    over = asyncio.Event()

    async def client() -> None:
        connection = Connection(port, request)
        while not over.is_set():
            await connection.ask(load)
        connection.close()

    tasks = [asyncio.create_task(client()) for _ in range(count)]
    await asyncio.sleep(1.0 + count / 1000)  # all are there
    load.took_s.clear()
    load.statuses.clear()
    began_s = time.perf_counter()
    await asyncio.sleep(SECONDS)
    load.seconds = time.perf_counter() - began_s
    took_s, statuses = list(load.took_s), Counter(load.statuses)
    over.set()
    await asyncio.gather(*tasks)
    return Load(took_s, statuses, load.seconds)


def judged(loads: dict[str, Load], saturated: Load) -> None:
    for name, load in loads.items():
        load.told(name)
    for name, load in loads.items():
        if "x10" not in name:
            continue  # beyond it the figures are for the reader
        measure.row(f"p99 of accepted calls, {name}", load.p99_s, saturated.p99_s, 2.0)
        # As time for each answered call, so that less is better: 75 % of the calls are 4/3.
        measure.row(f"time for an answered call, {name}", 1 / load.rate, 1 / saturated.rate, 4 / 3)


def main() -> None:
    _, contract, *_ = model("logistic")
    body = json.dumps(contract.example).encode()
    with tempfile.TemporaryDirectory() as folder:
        for slow in (0.01, None):
            world = World(Path(folder) / str(slow))
            try:
                worker = world.worker("logistic", slow=slow)
                told = route("logistic", worker.address)
                port = int(world.front([told]).address.rsplit(":", 1)[1])
                head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
                asyncio.run(clients(port, request, 8))  # warm
                measure.title(
                    "clients without a pause, a model of "
                    + ("no time" if slow is None else f"{slow * 1000:g} ms")
                )
                saturated = asyncio.run(clients(port, request, LIMIT))
                loads = {"saturated": saturated}
                for times in (10, 50):
                    loads[f"clients x{times}"] = asyncio.run(clients(port, request, times * LIMIT))
                judged(loads, saturated)
            finally:
                world.close()


if __name__ == "__main__":
    main()
