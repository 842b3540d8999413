"""Secrets in bytes: tokens of known shape, passwords in assignments, values that must not leave.

Shapes are an allow-list of what services publish about their tokens, so that a finding is hardly
ever false. Each has a literal that is looked for first: text without it costs one search.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

TOKEN = "secret"  # noqa: S105 - the code of a rule
PASSWORD = "password"  # noqa: S105 - the code of a rule

# The conventions of detect-secrets and gitleaks for a line that may stand.
_ALLOWED = (b"pragma: allowlist secret", b"gitleaks:allow")
_TEXT_LIMIT_BYTES = 32 * 1024 * 1024
_BINARY_LIMIT_BYTES = 1024 * 1024
_SHORTEST_VALUE = 6
_SHOWN_VALUES = 20


@dataclass(frozen=True, slots=True)
class Leak:
    """A place that holds a secret; never the secret itself.

    ``code`` is the rule: a token of known shape or a named secret's value, or a likely password.
    ``cell`` counts from 1, ``line`` within the cell or file. ``in_output`` says that a cell's
    output holds it, not its source.
    """

    code: str
    what: str
    line: int
    cell: int | None = None
    in_output: bool = False


# What it is, literals of which one must be there, the shape; the group, if any, is the secret.
_SHAPES: tuple[tuple[str, tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    (
        "an AWS access key",
        (b"AKIA", b"ASIA"),
        re.compile(rb"(?<![A-Za-z0-9/+])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9/+])"),
    ),
    (
        "an AWS secret access key",
        (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY"),
        re.compile(
            rb"(?i:aws_secret_access_key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([A-Za-z0-9/+]{40})\b"
        ),
    ),
    (
        "a GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
        re.compile(rb"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}(?!\w)"),
    ),
    (
        "a GitHub token",
        (b"github_pat_",),
        re.compile(rb"(?<!\w)github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?!\w)"),
    ),
    ("a GitLab token", (b"glpat-",), re.compile(rb"(?<!\w)glpat-[A-Za-z0-9_-]{20,64}(?![\w-])")),
    (
        "a Slack token",
        (b"xoxb-", b"xoxp-", b"xoxa-", b"xoxr-", b"xoxs-"),
        re.compile(rb"(?<!\w)xox[abprs]-\d{8,14}-[A-Za-z0-9-]{16,200}"),
    ),
    (
        "a Slack webhook",
        (b"hooks.slack.com/services/",),
        re.compile(rb"hooks\.slack\.com/services/(T\w{6,12}/B\w{6,12}/\w{20,40})"),
    ),
    ("a Hugging Face token", (b"hf_",), re.compile(rb"(?<!\w)hf_[A-Za-z]{34}(?!\w)")),
    (
        "an OpenAI key",
        (b"sk-",),
        re.compile(
            rb"(?<![\w-])sk-(?:(?:proj|svcacct|admin)-[\w-]{40,200}"
            rb"|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|[A-Za-z0-9]{48})(?![\w-])"
        ),
    ),
    ("an Anthropic key", (b"sk-ant-",), re.compile(rb"(?<![\w-])sk-ant-[a-z0-9]+-[\w-]{80,120}")),
    ("a Google API key", (b"AIza",), re.compile(rb"(?<![\w-])AIza[0-9A-Za-z_-]{35}(?![\w-])")),
    (
        "a Stripe key",
        (b"sk_live_", b"rk_live_"),
        re.compile(rb"(?<!\w)[sr]k_live_[0-9A-Za-z]{24,99}(?!\w)"),
    ),
    ("an npm token", (b"npm_",), re.compile(rb"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)")),
    ("a PyPI token", (b"pypi-AgE",), re.compile(rb"pypi-AgEIcHlwaS5vcmc[\w-]{50,200}")),
    ("a Databricks token", (b"dapi",), re.compile(rb"(?<!\w)dapi[0-9a-f]{32}(?!\w)")),
    ("an Azure storage key", (b"AccountKey=",), re.compile(rb"AccountKey=([A-Za-z0-9+/]{86}==)")),
    ("a SendGrid key", (b"SG.",), re.compile(rb"(?<![\w.])SG\.[\w-]{22}\.[\w-]{43}(?!\w)")),
    (
        "a private key",
        (b"PRIVATE KEY",),
        re.compile(
            rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            rb"(?:[\s\"',+]|\\n|\\r){1,40}(?:[A-Z][\w-]+: [^\n]{1,99}\s+)*([A-Za-z0-9+/=]{32,})"
        ),
    ),
)

# Each keyword is the literal beginning of a shape of its own: so text without it is read fast.
_KEYWORDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "api_key", "api-key", "apikey",
    "access_key", "access-key", "accesskey", "secret_key", "secret-key",
)  # fmt: skip
_QUOTED = r"""["']?\s{0,4}(?::|=(?!=))\s{0,4}[rbuf]?(["'])(?P<value>[^\s"'\\]{8,200})\1"""
_BARE = r"""[ \t]{0,4}[:=][ \t]{0,4}(?P<value>[^\s"'#]{8,200})[ \t]*(?:\r?\n|\Z)"""
_BARE_FILES = re.compile(r"(?:^|/)\.env[^/]*$|\.(?:env|ini|cfg|conf|properties|ya?ml)$")
_LINE_BEGINS = re.compile(rb"\n[ \t]*(?:export |- )?[A-Za-z0-9_.-]*\Z")
_NAME = re.compile(rb"[A-Za-z0-9_.-]{0,40}\Z")
_URL = re.compile(rb"://([^\s:/@\"'<>]{1,80}):([^\s/@\"'<>]{3,200})@([\w.-]+)")
_PLACEHOLDER = re.compile(
    rb"(?i)[][<>{}$*]|%[(s]|\.\.\.|xxx|your|example|change|dummy|placeholder|fake|sample|todo|redacted"
    rb"|insert|replace|secret|passw|token|[a-z]key\b|env|getpass|test|none|null|foo|abc|1234"
)
# A UUID, or words such as `bert-base-v2`.
_IDENTIFIER = re.compile(
    rb"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z]{2,20}(?:[-_.:](?:[a-z]{1,15}|\w{1,4}))+"
)
_HERE = (b"localhost", b"127.0.0.1", b"0.0.0.0", b"example.com", b"example.org", b"host")


def secrets_in(
    data: bytes, path: str, values: Mapping[str, str] | None = None, *, outputs: bool = True
) -> list[Leak]:
    """Return where a file holds secrets.

    The first 32 MiB of a text are read, the first MiB of anything else. A notebook is read cell by
    cell, sources and outputs.

    Parameters
    ----------
    data
        The file's bytes.
    path
        Its name, which tells what it is.
    values
        The values that must not be in it, by the names of the secrets.
    outputs
        Whether to read a notebook's outputs too; a snapshot has none.
    """
    known = {n: v.encode() for n, v in (values or {}).items() if len(v) >= _SHORTEST_VALUE}
    if path.endswith(".ipynb"):
        parts = _parts(data, outputs=outputs)
        if parts is not None:
            return _in_notebook(parts, known)
    if b"\0" in data[:8192]:
        return list(_tokens(data[:_BINARY_LIMIT_BYTES], known))
    return list(_in_text(data[:_TEXT_LIMIT_BYTES], known, bare=bool(_BARE_FILES.search(path))))


def _in_text(data: bytes, values: Mapping[str, bytes], *, bare: bool = False) -> Iterator[Leak]:
    tokens = list(_tokens(data, values))
    yield from tokens
    lines = {leak.line for leak in tokens}
    yield from (leak for leak in _passwords(data, bare=bare) if leak.line not in lines)


def _tokens(data: bytes, values: Mapping[str, bytes]) -> Iterator[Leak]:
    places: list[tuple[int, str]] = []
    for what, literals, shape in _SHAPES:
        if not any(literal in data for literal in literals):
            continue
        for match in shape.finditer(data):
            secret = match.group(match.lastindex or 0)
            # `EXAMPLE` ends the keys in AWS' own documents; few letters make `xxxx`.
            if not secret.endswith(b"EXAMPLE") and len(set(secret)) > 9:
                places.append((match.start(), what))
    for name, value in values.items():
        what = f"the value of the secret `{name}`"
        matches = itertools.islice(re.finditer(re.escape(value), data), _SHOWN_VALUES)
        places.extend((match.start(), what) for match in matches)
    yield from _leaks(data, places, TOKEN)


def _passwords(data: bytes, *, bare: bool) -> Iterator[Leak]:
    places = [*_assigned(data, bare=bare), *_in_urls(data)]
    return _leaks(data, places, PASSWORD)


def _assigned(data: bytes, *, bare: bool) -> Iterator[tuple[int, str]]:
    lowered = data.lower()
    for keyword in _KEYWORDS:
        if keyword.encode() not in lowered:
            continue
        for shape in (_QUOTED, _BARE) if bare else (_QUOTED,):
            for match in re.finditer((keyword + shape).encode(), lowered):
                before = data[max(0, match.start() - 60) : match.start()]
                if shape is _BARE and not _LINE_BEGINS.search(b"\n" + before):
                    continue
                found = _NAME.search(before)
                end = match.start() + len(keyword)
                name = (found.group() if found else b"") + data[match.start() : end]
                if _is_likely(name, data[slice(*match.span("value"))]):
                    spelled = name.decode(errors="replace").lstrip("-.")
                    yield match.start(), f"what looks like a secret, as `{spelled}`"


def _in_urls(data: bytes) -> Iterator[tuple[int, str]]:
    if b"://" not in data or b"@" not in data:
        return
    for match in _URL.finditer(data):
        user, password, host = match.groups()
        if password not in (user, host) and host not in _HERE and _is_mixed(password):
            yield match.start(), "a password in a URL"


def _is_likely(name: bytes, value: bytes) -> bool:
    """Return whether a value is more random than words and names are."""
    if not _is_mixed(value):
        return False
    if re.search(rb"(?i)pass|pwd", name):
        return _entropy(value) >= 2.75
    if _IDENTIFIER.fullmatch(value) or re.search(rb"[/\\]|\w\.\w+\(", value):
        return False  # it names something, and opens nothing
    return len(value) >= 16 and _entropy(value) >= 3.5


def _is_mixed(value: bytes) -> bool:
    if _PLACEHOLDER.search(value):
        return False
    return bool(re.search(rb"\d", value) and re.search(rb"[A-Za-z]", value))


def _entropy(value: bytes) -> float:
    """Return Shannon's entropy of the characters, in bits each."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values())


def _leaks(data: bytes, places: list[tuple[int, str]], code: str) -> Iterator[Leak]:
    """Yield the places as lines; not those in lines that say they may stand."""
    if not places:
        return
    ends = [match.start() for match in re.finditer(rb"\n", data)]
    told: set[tuple[int, str]] = set()
    for at, what in sorted(places):
        index = bisect.bisect_left(ends, at)
        first = ends[index - 1] + 1 if index else 0
        line = data[first : ends[index] if index < len(ends) else len(data)]
        if any(mark in line for mark in _ALLOWED) or (index, what) in told:
            continue
        told.add((index, what))
        yield Leak(code, what, index + 1)


def _parts(data: bytes, *, outputs: bool) -> list[tuple[int | None, bool, bytes]] | None:
    """Return a notebook's texts: the cell, whether it is an output, the text."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        return None
    parts: list[tuple[int | None, bool, bytes]] = []
    for position, cell in enumerate(document["cells"], 1):
        if not isinstance(cell, dict):
            continue
        parts.append((position, False, b"".join(_texts(cell.get("source")))))
        if outputs:
            parts.append((position, True, b"\n".join(_texts(cell.get("outputs")))))
        rest = {k: v for k, v in cell.items() if k not in ("source", "outputs", "id")}
        parts.append((position, False, b"\n".join(_texts(rest))))
    parts.append((None, False, b"\n".join(_texts(document.get("metadata")))))
    return [part for part in parts if part[2]]


def _texts(found: object) -> Iterator[bytes]:
    """Yield all texts below, lines of a list as one; not those of pictures and sounds."""
    waiting = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value.encode()
        elif isinstance(value, list):
            if value and all(isinstance(line, str) for line in value):
                yield "".join(value).encode()
            else:
                waiting.extend(reversed(value))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not str(key).startswith(("image/", "audio/", "video/")):
                    waiting.append(inner)


def _in_notebook(
    parts: list[tuple[int | None, bool, bytes]], values: Mapping[str, bytes]
) -> list[Leak]:
    """Return the secrets in a notebook's texts, read as one: most cells are small."""
    starts = [0]
    for _, _, text in parts:
        starts.append(starts[-1] + text.count(b"\n") + 1)
    found: list[Leak] = []
    for leak in _in_text(b"\n".join(text for *_, text in parts)[:_TEXT_LIMIT_BYTES], values):
        index = bisect.bisect_left(starts, leak.line) - 1
        position, in_output, _ = parts[index]
        found.append(Leak(leak.code, leak.what, leak.line - starts[index], position, in_output))
    return found
