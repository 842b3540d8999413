"""Which worker a call goes to: the route table, checked, and swapped as one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from nbmlops import tensors
from nbmlops.front.protocol import InvalidRoutes, NoDeployment, StaleRoutes
from nbmlops.front.upstream import Worker
from nbmlops.records import Route, RouteTable
from nbmlops.tensors import InvalidAddress

_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Routes:
    """A route table and the workers that it leads to; swapped as one."""

    table: RouteTable
    workers: tuple[Worker, ...] = ()

    @property
    def champion(self) -> Worker | None:
        """The worker that the endpoint is known by: its schema, its readiness."""
        return next((one for one in self.workers if one.route.role == "champion"), None)

    def pick(self, chance: Callable[[], float] = random.random) -> Worker:
        """Return a worker by the routes' shares; ``chance`` is uniform in [0, 1).

        Raises
        ------
        NoDeployment
            When there is no route.
        """
        if not self.workers:
            raise NoDeployment(
                f"no deployment stands behind {self.table.endpoint}",
                f"Deploy one: `nbmlops deploy {self.table.endpoint}`.",
            )
        at = 100.0 * chance()
        *others, last = self.workers
        for worker in others:
            at -= worker.route.share
            if at < 0:
                return worker
        return last


def check_table(table: RouteTable, endpoint: str) -> None:
    """Refuse a route table that has no meaning.

    Raises
    ------
    InvalidRoutes
        When it is another endpoint's, or its routes do not add up.
    """
    if table.endpoint != endpoint:
        raise InvalidRoutes(f"these are the routes of {table.endpoint[:80]!r}, not of {endpoint}")
    seen: set[str] = set()
    for route in table.routes:
        _check_route(route)
        if route.deployment_id in seen:
            raise InvalidRoutes(f"{route.deployment_id} has two routes")
        seen.add(route.deployment_id)
    champions = sum(route.role == "champion" for route in table.routes)
    total = sum(route.share for route in table.routes)
    if table.routes and (champions != 1 or abs(total - 100.0) > 1e-6):
        raise InvalidRoutes(
            f"{champions} champions and {total:g} percent in all",
            "There is one champion, and all shares sum to 100.",
        )


def _check_route(route: Route) -> None:
    try:
        tensors.parse_address(route.address)
    except InvalidAddress as error:
        raise InvalidRoutes(error.message, error.hint) from error
    named = (
        (route.deployment_id, _DEPLOYMENT),
        (route.model, _MODEL),
        (route.commit, _COMMIT),
    )
    for text, allowed in named:
        if not allowed.fullmatch(text):
            raise InvalidRoutes(f"{text[:80]!r} is not a deployment, model or commit")
    if route.role == "shadow":
        raise InvalidRoutes("this version has no shadow routes", "Use champion and canary.")
    if not 0.0 <= route.share <= 100.0:
        raise InvalidRoutes(f"{route.share!r} is not a share in percent")


def check_newer(table: RouteTable, present: RouteTable) -> bool:
    """Return whether the table is newer; the present one again is fine and changes nothing.

    Raises
    ------
    StaleRoutes
        When it is older, or of the same revision and different.
    """
    if table.revision > present.revision:
        return True
    if table == present:
        return False
    raise StaleRoutes(
        f"revision {table.revision} is not above {present.revision}",
        "Read the present routes, and try again.",
        revision=present.revision,
    )
