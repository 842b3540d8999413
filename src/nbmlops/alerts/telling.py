"""What people are told of an alert: a sentence, and a document without a row of anybody's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nbmlops import digests, records
from nbmlops.project import AlertSettings
from nbmlops.records import Alert, Delivery, Explanation

LOG = "log"
_LONGEST = 300  # characters of a text that somebody's data have a part in
_MOST = 10  # suspects and coincidences
_HEADS: dict[Literal["raised", "changed", "repeated", "recovered"], str] = {
    "raised": "is no longer as in training",
    "changed": "differs from training in more than before",
    "repeated": "is still not as in training",
    "recovered": "is as in training again",
}


def deliveries(settings: AlertSettings) -> tuple[Delivery, ...]:
    """Return who is to be told, as the settings say."""
    log = (LOG,) if settings.log else ()
    return tuple(Delivery(sink=sink) for sink in (*log, *urls(settings, {})))


def urls(settings: AlertSettings, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the webhooks' URLs by the names of their sinks, ``None`` where a variable is not set.

    A sink's name tells no more of a URL than its host.
    """
    found: dict[str, str | None] = {named(url): url for url in settings.webhooks}
    return found | {f"${name}": environ.get(name) for name in settings.webhook_secrets}


def named(url: str) -> str:
    """Return the name of a webhook's sink.

    >>> named("https://hooks.example.com/T0/secret")
    'hooks.example.com#f4df2084'
    """
    host = url.partition("://")[2].partition("/")[0].lower()
    return f"{host}#{digests.of_bytes(url.encode())[:8]}"


def bounded(alert: Alert) -> Alert:
    """Return an alert whose texts and lists are no longer than people read."""
    explanation = alert.explanation
    return records.replace(
        alert,
        questions=tuple(
            records.replace(item, reason=_cut(item.reason)) for item in alert.questions
        ),
        explanation=None if explanation is None else _explained(explanation),
    )


def sentence(alert: Alert) -> str:
    """Return an alert in one line: what, where, since when."""
    version = alert.model if alert.version is None else f"{alert.model}:{alert.version}"
    since = f", since {alert.since:%Y-%m-%d %H:%M} UTC" if alert.since else ""
    *others, last = [item.question for item in alert.questions]
    names = f"{', '.join(others)} and {last}" if others else last
    reasons = " ".join(item.reason for item in alert.questions)
    head = f"{alert.endpoint} ({version}) {_HEADS[alert.event]}"
    if alert.event == "recovered":
        return f"{head}: {names}{since}."
    return _cut(f"{head}: {names}{since}. {reasons}")


def line(alert: Alert) -> bytes:
    """Return an alert as a line of the log: all but who was told."""
    return records.dump(_document(alert)) + b"\n"


def body(alert: Alert) -> bytes:
    """Return what a webhook is sent: the document, with a ``text`` as chats show it."""
    text = sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return records.dump({"text": text, **_document(alert)})


def _document(alert: Alert) -> dict[str, Any]:
    """Return what of an alert concerns whoever is told."""
    return {
        "event": alert.event,
        "event_id": alert.event_id,
        "alert_id": alert.alert_id,
        "at": alert.at,
        "raised_at": alert.raised_at,
        "since": alert.since,
        "endpoint": alert.endpoint,
        "model": alert.model,
        "version": alert.version,
        "commit": alert.commit,
        "verdict": alert.verdict,
        "questions": alert.questions,
        "window": alert.window,
        "explanation": alert.explanation,
    }


def _explained(explanation: Explanation) -> Explanation:
    return records.replace(
        explanation,
        suspects=tuple(
            records.replace(one, column=_cut(one.column)) for one in explanation.suspects[:_MOST]
        ),
        coincidences=tuple(
            records.replace(one, message=_cut(one.message))
            for one in explanation.coincidences[:_MOST]
        ),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
