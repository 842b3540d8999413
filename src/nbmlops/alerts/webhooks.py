"""Webhooks: one POST to a host that this machine allows, and nothing that leads elsewhere.

A repository names URLs, and whoever clones it runs its settings; so which hosts are told anything
is up to the machine, by a variable. A host is looked up once and connected to at the address that
was looked at. Addresses that are not public are refused, unless the machine names them as such.
There are no redirects and no proxies: either would lead to where nobody has looked.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from nbmlops._version import __version__
from nbmlops.project import WEBHOOK

DEADLINE_S = 10.0
ANSWER_LIMIT_BYTES = 1024 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

# Not public, though some versions of Python's tables, or all, say so: addresses that the internet's
# own machinery uses, and one at which a provider's machines find its services.
_APART = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
        *("64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
        "fec0::/10",
    )
)
# An IPv4 address within IPv6: translated by a gateway, so the one inside is what counts.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class NotDelivered(Exception):
    """A webhook was not told; the message says why, and never a URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook goes: its host in lower case, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> Address | None:
        """The host as an address, if it is spelled as one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def target_of(url: str) -> Target:
    """Return where a URL leads.

    Raises
    ------
    NotDelivered
        When it is none that may be written in ``nbmlops.toml``.

    >>> target_of("https://Hooks.example.com/a?b=1")
    Target(scheme='https', host='hooks.example.com', port=443, path='/a?b=1')
    """
    found = WEBHOOK.fullmatch(url)
    if found is None:
        raise NotDelivered("it is not a URL such as https://hooks.example.com/path")
    port = int(found["port"]) if found["port"] else 443 if found["scheme"] == "https" else 80
    if not 0 < port < 65536:
        raise NotDelivered(f"{port} is no port")
    return Target(found["scheme"], _spelled(found["host"]), port, found["target"] or "/")


def _spelled(host: str) -> str:
    """Return a host in the one way in which hosts are compared."""
    plain = host.lower().removeprefix("[").removesuffix("]").rstrip(".")
    with suppress(ValueError):
        return str(ipaddress.ip_address(plain))
    return plain


def allowed_hosts(listed: str) -> frozenset[tuple[str, int]]:
    """Return the hosts of a list such as ``hooks.example.com, localhost:8080``, with their ports.

    Without a port it is 443. What cannot be read allows nothing.

    >>> sorted(allowed_hosts("hooks.example.com, [::1]:8080"))
    [('::1', 8080), ('hooks.example.com', 443)]
    """
    found: set[tuple[str, int]] = set()
    for entry in listed.split(","):
        host, port = entry.strip(), "443"
        with suppress(ValueError):  # an IPv6 address without brackets has no port
            found.add((str(ipaddress.ip_address(host)), 443))
            continue
        if not host.endswith("]"):
            before, colon, after = host.rpartition(":")
            host, port = (before, after) if colon else (host, port)
        if host and port.isascii() and port.isdigit() and len(port) <= 5:
            found.add((_spelled(host), int(port)))
    return frozenset(found)


def check_allowed(target: Target, allowed: frozenset[tuple[str, int]]) -> None:
    """Refuse a host that this machine does not allow.

    Raises
    ------
    NotDelivered
        When it does not, or when what is told could be read on its way.
    """
    if (target.host, target.port) not in allowed:
        raise NotDelivered(
            "its host is not allowed on this machine: add it to the variable NBMLOPS_WEBHOOK_HOSTS"
        )
    address = target.address
    loopback = target.host == "localhost" or (address is not None and address.is_loopback)
    if target.scheme != "https" and not loopback:
        raise NotDelivered("http is for this machine alone: write https")


def check_address(target: Target, found: Address) -> None:
    """Refuse an address that a host may not lead to.

    A host that was allowed as an address is that address; ``localhost`` is this machine; any other
    has public addresses.

    Raises
    ------
    NotDelivered
        When it leads elsewhere.
    """
    if target.address is not None:
        if found == target.address:
            return
    elif target.host == "localhost":
        if found.is_loopback:
            return
    elif _is_public(found):
        return
    raise NotDelivered("its host leads to an address that is not public")


def _is_public(address: Address) -> bool:
    if any(address in network for network in _APART):
        return False
    inner = _within(address)
    if inner is not None:
        return _is_public(inner)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_link_local
    )


def _within(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def post(
    url: str,
    body: bytes,
    key: str,
    allowed: frozenset[tuple[str, int]],
    *,
    deadline_s: float = DEADLINE_S,
    resolver: Resolve = resolve,
    trust: ssl.SSLContext | None = None,
) -> None:
    """Tell a webhook, once; it takes at most ``deadline_s``.

    ``key`` goes with it as ``Idempotency-Key``: what is told again has the same.

    Raises
    ------
    NotDelivered
        When it was not told, or did not say that it took it.
    """
    ends_s = time.monotonic() + deadline_s
    target = target_of(url)
    check_allowed(target, allowed)
    addresses = _addresses(target, resolver, ends_s)
    for address in addresses:
        check_address(target, address)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"nbmlops/{__version__}",
        "Idempotency-Key": key,
        "Connection": "close",
    }
    try:
        with _connected(target, addresses, ends_s, trust) as connection:
            connection.request("POST", target.path, body, headers)
            answer = connection.getresponse()
            if time.monotonic() >= ends_s:  # so its head may have been cut off
                raise TimeoutError
            status = answer.status
            if 200 <= status < 300:
                with suppress(OSError, http.client.HTTPException, ValueError):
                    answer.read(ANSWER_LIMIT_BYTES)  # so that it may end what it says
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= ends_s:
            raise NotDelivered(f"it did not answer within {deadline_s:g} s") from error
        if isinstance(error, ssl.SSLCertVerificationError):
            raise NotDelivered("its certificate is not one that this machine trusts") from error
        raise NotDelivered(f"it cannot be reached ({type(error).__name__})") from error
    if 300 <= status < 400:
        raise NotDelivered(f"it answered {status}, a redirect, which is not followed")
    if not 200 <= status < 300:
        raise NotDelivered(f"it answered {status}")


def _addresses(target: Target, resolver: Resolve, ends_s: float) -> list[Address]:
    """Look a host up, once; what the system takes to find it counts."""
    own = target.address
    if own is not None:
        return [own]
    found: list[str] = []

    def look() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(resolver(target.host, target.port))

    # The system's own look-up has no time limit, and cannot be ended.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(max(ends_s - time.monotonic(), 0.0))
    addresses: list[Address] = []
    for one in tuple(found):
        with suppress(ValueError):
            addresses.append(ipaddress.ip_address(one))
    if not addresses:
        raise NotDelivered("its host has no address that could be found")
    return addresses


class _Direct(http.client.HTTPConnection):
    """A connection over a socket that is there already."""

    def __init__(self, target: Target, made: socket.socket) -> None:
        super().__init__(target.host, target.port)
        self.sock = made
        self.auto_open = 0
        # By its name, so that the port is left out where it is the scheme's own.
        self.default_port = 443 if target.scheme == "https" else 80

    def connect(self) -> None:
        """Never connect again: it would be to an address that nobody has looked at."""
        raise http.client.NotConnected


@contextmanager
def _connected(
    target: Target, addresses: list[Address], ends_s: float, trust: ssl.SSLContext | None
) -> Generator[http.client.HTTPConnection, None, None]:
    """Hold a connection to the first of the addresses that answers; it ends at the deadline."""
    made = _reached(target, addresses, ends_s)
    # Each byte may take as long as a socket's timeout; all of them, no longer than this.
    held = [made]
    ending = threading.Timer(max(ends_s - time.monotonic(), 0.0), _shut, (held,))
    ending.daemon = True
    ending.start()
    try:
        if target.scheme == "https":
            context = trust or ssl.create_default_context()
            wrapped = context.wrap_socket(
                made, server_hostname=target.host, do_handshake_on_connect=False
            )
            held[0] = wrapped
            wrapped.do_handshake()
        yield _Direct(target, held[0])
    finally:
        ending.cancel()
        held[0].close()


def _reached(target: Target, addresses: list[Address], ends_s: float) -> socket.socket:
    error: OSError = TimeoutError()
    for number, address in enumerate(addresses):
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            break
        own_s = left_s / (len(addresses) - number)  # one that is silent leaves time for the next
        try:
            made = socket.create_connection((str(address), target.port), timeout=own_s)
        except OSError as failed:
            error = failed
            continue
        made.settimeout(max(ends_s - time.monotonic(), 0.01))
        return made
    raise error


def _shut(held: list[socket.socket]) -> None:
    with suppress(OSError):
        # Not by TLS' own words, which wait for the other side.
        socket.socket.shutdown(held[0], socket.SHUT_RDWR)
