"""Webhooks go to a host that the machine allows, and nowhere else."""

import http.client
import ipaddress
import socket
import ssl
import subprocess
import time

import hooks
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops.alerts import webhooks
from nbmlops.alerts.webhooks import (
    NotDelivered,
    allowed_hosts,
    check_address,
    check_allowed,
    post,
    target_of,
)

BODY, KEY = b'{"text": "drift"}', "churn-0001-1"


@pytest.fixture
def hook():
    with hooks.listening() as made:
        yield made


def sent(hook, host="127.0.0.1", path="/hook", listed=None, **options):
    allowed = allowed_hosts(f"{host}:{hook.port}" if listed is None else listed)
    post(f"http://{host}:{hook.port}{path}", BODY, KEY, allowed, **options)


# --- told -----------------------------------------------------------------------------------------


def test_a_host_that_is_allowed_is_told_once_with_its_key(hook):
    sent(hook, path="/T0/B1?x=1&y=%20")
    ((path, headers, body),) = hook.asked
    assert (path, body) == ("/T0/B1?x=1&y=%20", BODY)
    assert headers["Idempotency-Key"] == KEY
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == f"127.0.0.1:{hook.port}"
    assert "Authorization" not in headers


def test_localhost_is_told_where_it_is_listed(hook):
    sent(hook, "localhost")
    assert len(hook.asked) == 1


def test_an_ipv6_address_is_told_where_it_is_listed():
    try:
        with hooks.listening("::1") as hook:
            sent(hook, "[::1]")
            assert hook.asked[0][1]["Host"] == f"[::1]:{hook.port}"
            sent(hook, "[::1]", listed=f"[0:0:0:0:0:0:0:1]:{hook.port}")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_a_proxy_of_the_environment_is_not_asked(hook, monkeypatch):
    with hooks.listening() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sent(hook)
        assert proxy.asked == []
    assert len(hook.asked) == 1


# --- what is answered -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(hook, status):
    hook.answers = [status]
    with pytest.raises(NotDelivered, match=f"{status}, a redirect"):
        sent(hook)
    assert len(hook.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_whoever_does_not_take_it_was_not_told(hook, status):
    hook.answers = [status]
    with pytest.raises(NotDelivered, match=f"answered {status}"):
        sent(hook)


@pytest.mark.parametrize("how", [hooks.silent, hooks.trickle])
def test_whoever_is_slow_is_not_waited_for(hook, how):
    hook.answers = [how]
    began_s = time.monotonic()
    with pytest.raises(NotDelivered, match=r"within 0\.6 s"):
        sent(hook, deadline_s=0.6)
    assert time.monotonic() - began_s < 3.0


def test_of_a_huge_answer_little_is_read(hook):
    hook.answers = [hooks.huge]
    sent(hook)
    # What the sockets hold comes on top of what was read.
    assert hook.sent < 64 * webhooks.ANSWER_LIMIT_BYTES


@pytest.mark.parametrize("how", [hooks.endless_head, hooks.nonsense])
def test_what_is_no_answer_is_refused(hook, how):
    hook.answers = [how]
    with pytest.raises(NotDelivered, match="cannot be reached"):
        sent(hook, deadline_s=5.0)


def test_nobody_there_is_told_as_such():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        allowed = allowed_hosts(f"127.0.0.1:{port}")
        with pytest.raises(NotDelivered, match="ConnectionRefusedError"):
            post(f"http://127.0.0.1:{port}/", BODY, KEY, allowed)


# --- what is allowed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listed",
    [
        "",
        " , ,",
        "127.0.0.1",  # of port 443
        "localhost:{port}",
        "127.0.0.1:1",
        "127.0.0.1:{port}0",
        "*",
        "0.0.0.0/0",
        "127.0.0.1:{port}/hook",
        "http://127.0.0.1:{port}",
        "user@127.0.0.1:{port}",
    ],
)
def test_what_is_not_in_the_list_is_told_nothing(hook, listed):
    with pytest.raises(NotDelivered, match="NBMLOPS_WEBHOOK_HOSTS"):
        sent(hook, listed=listed.format(port=hook.port))
    assert hook.asked == []


def test_plain_http_is_for_this_machine_alone():
    for host in ("hooks.example.com", "10.0.0.7"):
        allowed = allowed_hosts(f"{host}:80")
        with pytest.raises(NotDelivered, match="write https"):
            check_allowed(target_of(f"http://{host}/"), allowed)
    check_allowed(target_of("http://localhost/"), allowed_hosts("localhost:80"))


def test_a_list_is_read_as_people_write_one():
    assert allowed_hosts(" Hooks.Example.com. ,a:8443,[::1],[::1]:80,fe80::1,10.0.0.7") == {
        ("hooks.example.com", 443),
        ("a", 8443),
        ("::1", 443),
        ("::1", 80),
        ("fe80::1", 443),
        ("10.0.0.7", 443),
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://user:word@hooks.example.com/",
        "https://hooks.example.com@169.254.169.254/",
        "https://hooks.example.com\\@evil.example/",
        "https://hooks.example.com#@evil.example/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com?x",
        "https://hooks.example.com:/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:80:443/",
        "https://hooks.exam\tple.com/",
        "https://hooks.example.com/\r\nX-Evil: 1",
        "https://hooks.example.com/ a",
        " https://hooks.example.com/",
        "https://hooks.example.com/\n",
        "https:///path",
        "https://[::1/",
        "https://[v1.x]/",
        "https://[fe80::1%25eth0]/",
        "https://h\u00f6oks.example.com/",
        "https://hooks.example.com\u3002evil.example/",
        "https://hooks.example.com/\u202e",
        "https://-hooks.example.com/",
        "//hooks.example.com/",
        "HTTPS://hooks.example.com/",
        "https://%31%32%37.0.0.1/",
        "https://hooks.example.com/" + "a" * 3000,
    ],
)
def test_odd_urls_are_no_urls(url):
    with pytest.raises(NotDelivered):
        post(url, BODY, KEY, allowed_hosts("hooks.example.com"), resolver=_never)


def _never(*asked, **_):
    raise AssertionError(f"{asked} was looked up, or connected to")


@given(st.text(max_size=60) | st.from_regex(webhooks.WEBHOOK, fullmatch=True))
def test_no_url_reaches_a_host_that_is_not_listed(url):
    with pytest.raises(NotDelivered):
        post(url, BODY, KEY, frozenset(), resolver=_never)


# --- where a name leads ---------------------------------------------------------------------------

NOT_PUBLIC = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.7",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::",
    "2001:0:a00:1::f5ff:fffe",
    "fe80::1%1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_leads_inside_is_refused(address, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", _never)
    for found in ([address], ["93.184.215.14", address]):
        with pytest.raises(NotDelivered, match="not public"):
            post(
                "https://hooks.example.com/",
                BODY,
                KEY,
                allowed_hosts("hooks.example.com"),
                resolver=lambda host, port, found=found: found,
            )


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_where_a_name_may_lead(address):
    check_address(target_of("https://hooks.example.com/"), ipaddress.ip_address(address))


def test_the_metadata_service_is_told_nothing_though_its_url_is_well_formed():
    with pytest.raises(NotDelivered, match="NBMLOPS_WEBHOOK_HOSTS"):
        post("https://169.254.169.254/latest/", BODY, KEY, allowed_hosts("hooks.example.com"))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.01"])
def test_an_address_in_disguise_is_a_name_and_leads_inside(host, hook):
    with pytest.raises(NotDelivered, match=r"write https|not public|no address"):
        sent(hook, host)
    allowed = allowed_hosts(f"{host}:{hook.port}")
    with pytest.raises(NotDelivered, match=r"not public|no address"):
        post(f"https://{host}:{hook.port}/", BODY, KEY, allowed)
    assert hook.asked == []


def test_localhost_leads_to_this_machine_alone(hook):
    with pytest.raises(NotDelivered, match="not public"):
        sent(hook, "localhost", resolver=lambda host, port: ["10.0.0.7"])
    assert hook.asked == []


def test_a_name_is_looked_up_once_and_its_address_is_connected_to(hook, monkeypatch):
    """Whoever answers otherwise the second time is not asked a second time."""
    looked, connected = [], []
    monkeypatch.setattr(
        socket, "getaddrinfo", _recording(socket.getaddrinfo, looked, lambda a: a[0])
    )
    monkeypatch.setattr(
        socket, "create_connection", _recording(socket.create_connection, connected, lambda a: a[0])
    )
    sent(hook, "localhost", resolver=lambda host, port: ["127.0.0.1"])
    assert connected == [("127.0.0.1", hook.port)]
    assert set(looked) <= {"127.0.0.1"}


def _recording(original, seen, what):
    def recorded(*arguments, **options):
        seen.append(what(arguments))
        return original(*arguments, **options)

    return recorded


def test_a_lost_connection_is_not_made_again(hook):
    made = webhooks._Direct(target_of(f"http://localhost:{hook.port}/"), socket.socket())
    made.close()
    with pytest.raises(http.client.NotConnected):
        made.request("POST", "/")
    assert hook.asked == []


def test_a_look_up_that_hangs_is_not_waited_for(hook):
    began_s = time.monotonic()
    with pytest.raises(NotDelivered, match="no address"):
        sent(hook, "localhost", deadline_s=0.3, resolver=lambda *_: time.sleep(5) or [])
    assert time.monotonic() - began_s < 3.0


def test_the_next_address_is_tried_where_one_does_not_answer(hook):
    sent(hook, "localhost", resolver=lambda *_: ["127.0.0.2", "127.0.0.1"])
    assert len(hook.asked) == 1


# --- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    words += " -addext subjectAltName=DNS:localhost"
    made = subprocess.run(
        [*words.split(), "-keyout", folder / "key", "-out", folder / "cert"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    return folder


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    with hooks.listening(context=context) as hook:
        yield hook


def by_tls(hook, certificate=None, host="localhost", **options):
    trust = ssl.create_default_context(cafile=certificate / "cert") if certificate else None
    allowed = allowed_hosts(f"{host}:{hook.port}")
    post(f"https://{host}:{hook.port}/hook", BODY, KEY, allowed, trust=trust, **options)


def test_https_is_told_under_its_name(secure, certificate):
    by_tls(secure, certificate)
    assert secure.asked[0][1]["Host"] == f"localhost:{secure.port}"
    secure.answers = [hooks.huge]
    by_tls(secure, certificate)


def test_a_certificate_that_is_not_trusted_or_another_s_is_refused(secure, certificate):
    with pytest.raises(NotDelivered, match="certificate"):
        by_tls(secure)
    with pytest.raises(NotDelivered, match="certificate"):
        by_tls(secure, certificate, "127.0.0.1")
    assert secure.asked == []


@pytest.mark.parametrize("how", [hooks.silent, hooks.trickle])
def test_whoever_is_slow_over_tls_is_not_waited_for_either(secure, certificate, how):
    secure.answers = [how]
    began_s = time.monotonic()
    with pytest.raises(NotDelivered, match=r"within 0\.8 s"):
        by_tls(secure, certificate, deadline_s=0.8)
    assert time.monotonic() - began_s < 3.0


def test_a_handshake_that_never_ends_is_not_waited_for(certificate):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        began_s = time.monotonic()
        here = {"deadline_s": 0.5, "resolver": lambda *_: ["127.0.0.1"]}
        allowed = allowed_hosts(f"localhost:{port}")
        with pytest.raises(NotDelivered, match="within"):
            post(f"https://localhost:{port}/", BODY, KEY, allowed, **here)
        assert time.monotonic() - began_s < 3.0
