"""The thread that counts answered records on the profiles of their models.

What ``/metrics`` tells of live calls, sizes of differences and no verdicts, is made here, off the
path of the calls: whoever answers one leaves its records in a list that is bounded. Every few
seconds what lies there is counted, and what did not fit is dropped and told; so a busy endpoint is
watched by a sample, and counting takes one hundredth of a core at most. The last hour counts.

numpy is imported by the thread, once there is a profile.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbmlops import records
from nbmlops.records import Prediction, Route

if TYPE_CHECKING:
    from nbmlops.monitoring.effects import Effects
    from nbmlops.monitoring.profile import Gauge, Tally

INTERVAL_S = 2.0
"""How often is counted, at most."""

ROWS_LIMIT = 1000
"""How many rows wait to be counted, at most."""

VALUES_LIMIT = 50_000
"""How many values these have, about: of wide models fewer rows are counted."""

COLUMNS_LIMIT = 200
"""How many columns are told of; the first ones."""

SLOT_S = 300.0
SLOTS = 12
"""So many slots are the window, and the one that is being filled is one of them."""

_SLIDE_S = 30.0  # how often the window moves on while nobody calls
_CLOSE_S = 2.0

_Taken = tuple[Route, Sequence[Mapping[str, Any]], Sequence[Prediction]]


@dataclass(slots=True)
class _Watched:
    """One deployment's gauge, ``None`` where it cannot be made, and its last hour's tallies."""

    of: tuple[Any, ...]
    gauge: Gauge | None
    slots: deque[tuple[int, Tally]] = field(default_factory=deque["tuple[int, Tally]"])


class Watch:
    """Counts what is answered; ``seen`` has each deployment's last hour, if anything is known."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.seen: Mapping[str, Effects] = {}
        self._say = say
        self._clock = clock
        self._interval_s = interval_s
        self._routes: dict[str, Route] = {}
        self._room = ROWS_LIMIT
        self._lock = threading.Lock()  # of the next three
        self._waiting: list[_Taken] = []
        self._rows = 0
        self._dropped: Counter[str] = Counter()
        self._watched: dict[str, _Watched] = {}
        self._told: set[str] = set()
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """How many rows of each deployment that is watched were answered and not counted."""
        with self._lock:
            return {name: self._dropped[name] for name in self._routes}

    def point(self, routes: Sequence[Route]) -> None:
        """Watch these deployments, as far as they have a profile, and no others."""
        self._routes = {one.deployment_id: one for one in routes if one.profile is not None}
        width = max((len(one.schema.columns) for one in self._routes.values()), default=1)
        self._room = min(ROWS_LIMIT, max(1, VALUES_LIMIT // max(1, min(width, COLUMNS_LIMIT))))
        if self._routes and self._thread is None:
            # A daemon: a process that is to end does not wait for it for long.
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        self._news.set()

    def take(
        self,
        route: Route,
        asked: Sequence[Mapping[str, Any]],
        answers: Sequence[Prediction],
    ) -> None:
        """Leave the records of a call, and its answers, to be counted.

        Of more rows than there is room for, some are taken all over the call.
        """
        name = route.deployment_id
        if name not in self._routes:
            return
        rows = len(asked)
        with self._lock:
            room = self._room - self._rows
            if rows > room:
                step = -(-rows // room) if room > 0 else rows + 1
                asked, answers = (asked[::step], answers[::step]) if room > 0 else ((), ())
                self._dropped[name] += rows - len(asked)
            if not asked:
                return
            is_first = not self._waiting
            self._waiting.append((route, asked, answers))
            self._rows += len(asked)
        if is_first:
            self._news.set()

    def close(self) -> None:
        """Count no more; this waits for a moment."""
        self._ending.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    # --- in the thread ---

    def _run(self) -> None:
        while not self._ending.is_set():
            self._news.wait(_SLIDE_S if self._watched else None)
            self._news.clear()
            self._prepare()
            if self._ending.wait(self._interval_s):  # what comes meanwhile is counted with it
                return
            self._prepare()  # for those that have come meanwhile
            self._count()

    def _prepare(self) -> None:
        """Make gauges for the deployments that are new, and forget those that have gone."""
        routes = dict(self._routes)
        for name in set(self._watched) - set(routes):
            del self._watched[name]
        for name, route in routes.items():
            of = (route.profile, route.never, route.hashed)
            held = self._watched.get(name)
            if held is not None and held.of == of:
                continue
            self._watched[name] = made = _Watched(of, None)
            try:
                made.gauge = _gauge(route)
            except Exception as error:  # the door of the thread, which must not end
                self._tell(name, error)

    def _count(self) -> None:
        with self._lock:
            waiting, self._waiting, self._rows = self._waiting, [], 0
        by_name: dict[str, tuple[list[Mapping[str, Any]], list[Prediction]]] = {}
        for route, asked, answers in waiting:
            both = by_name.setdefault(route.deployment_id, ([], []))
            both[0].extend(asked)
            both[1].extend(answers)
        slot = int(self._clock() // SLOT_S)
        seen: dict[str, Effects] = {}
        for name in {*by_name, *self._watched}:
            asked, answers = by_name.get(name, ([], []))
            held = self._watched.get(name)
            if held is not None and held.gauge is not None:
                try:
                    found = _counted(held.gauge, held.slots, slot, asked, answers)
                except Exception as error:  # the door of the thread, which must not end
                    self._tell(name, error)
                else:
                    if found is not None:
                        seen[name] = found
                    continue
            with self._lock:
                self._dropped[name] += len(asked)
        self.seen = seen

    def _tell(self, name: str, error: Exception) -> None:
        """Say once that a deployment is not watched; an error's own words may have values."""
        if name not in self._told:
            self._told.add(name)
            what = str(error) if isinstance(error, ImportError) else type(error).__name__
            self._say(f"the calls of {name} are answered, and not held against its profile: {what}")


def _gauge(route: Route) -> Gauge:
    # Its threads would be for matrices, which there are none of.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nbmlops.monitoring import profile

    reference = records.load(route.profile or b"", profile.Profile)
    if reference.format != profile.FORMAT:
        raise ValueError(reference.format)
    hidden = frozenset((*route.never, *route.hashed))
    return profile.Gauge(profile.narrowed(reference, hidden=hidden, limit=COLUMNS_LIMIT))


def _counted(
    gauge: Gauge,
    slots: deque[tuple[int, Tally]],
    slot: int,
    asked: list[Mapping[str, Any]],
    answers: list[Prediction],
) -> Effects | None:
    """Count rows into the slot of now; return what the last hour shows, if there is anything."""
    from nbmlops.monitoring import effects, profile

    while slots and slots[0][0] <= slot - SLOTS:
        slots.popleft()
    if asked:
        tally = gauge.calls(asked, answers)
        if slots and slots[-1][0] == slot:
            tally = profile.merge([slots.pop()[1], tally])
        slots.append((slot, tally))
    if not slots:
        return None
    return effects.effects(gauge, profile.merge([one for _, one in slots]))
