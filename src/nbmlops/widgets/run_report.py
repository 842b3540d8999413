"""The run card as text and as HTML without script: pure functions of its document.

The HTML has the elements and classes of the live card, so that one takes the other's place
unseen; where a host strips the styles, a heading, lists and paragraphs are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from nbmlops.widgets.assets import styles
from nbmlops.widgets.wording import clean

# --- text -------------------------------------------------------------------------------------


def text(document: Mapping[str, Any]) -> str:
    """Return the card as plain text, for a terminal, a log or a git host."""
    return "\n".join(clean(line) for line in _lines(document))


def _lines(document: Mapping[str, Any]) -> Iterable[str]:
    took = f"  {document['took']}" if document["took"] else ""
    yield f"{document['mark']} {document['state']}  {document['run_id']}{took}"
    yield f"  {', '.join(document['facts'])}"
    width = max((len(step["name"]) for step in document["steps"]), default=0)
    for step in document["steps"]:
        parts = (step["name"].ljust(width), step["word"].ljust(9), step["told"], step["took"])
        yield f"  {step['mark']} {'  '.join(part for part in parts if part)}"
    if document["metrics"]:
        yield "  " + ", ".join(f"{item['name']}={item['value']}" for item in document["metrics"])
    cause = document["cause"]
    if cause:
        where = f" ({cause['place']})" if cause["place"] else ""
        yield f"  {cause['code']}: {' '.join(cause['message'].split())}{where}"
        if cause["hint"]:
            yield f"  {cause['hint']}"
    if document["note"]:
        yield f"  {document['note']}"
    if document["models"]:
        yield f"  model {', '.join(document['models'])}"
    for command in document["commands"]:
        yield f"  {command['what']}: {command['type']}"


# --- HTML -------------------------------------------------------------------------------------


def html(document: Mapping[str, Any]) -> str:
    """Return the card as one piece of static HTML, styled, everything in it escaped."""
    return "".join(
        (
            f"<style>{styles('run')}</style>",
            f'<div class="nbm nbm-run" data-state="{_safe(document["state"])}">',
            head(document, document["run_id"]),
            f'<ol class="nbm-steps">{"".join(map(_html_step, document["steps"]))}</ol>',
            _html_metrics(document["metrics"]),
            html_cause(document["cause"]),
            f'<p class="nbm-note">{_safe(document["note"])}</p>' if document["note"] else "",
            html_commands(document["commands"]),
            _html_log(document["log"]),
            _html_artifacts(document["artifacts"]),
            "</div>",
        )
    )


def _safe(value: str) -> str:
    return escape(clean(value), quote=True)


def head(document: Mapping[str, Any], title: str) -> str:
    """Return the title line of a run or sweep: state, name, time; then the facts."""
    badge = (
        f'<span class="nbm-badge" data-state="{_safe(document["state"])}">'
        f"{document['mark']} {_safe(document['state'])}</span>"
    )
    facts = "".join(f"<li>{_safe(fact)}</li>" for fact in document["facts"])
    return (
        f'<p class="nbm-title" role="heading" aria-level="3">{badge} '
        f'<strong>{_safe(title)}</strong> <span class="nbm-clock">{_safe(document["took"])}</span>'
        f'</p><ul class="nbm-facts">{facts}</ul>'
    )


def _html_step(step: Mapping[str, Any]) -> str:
    return (
        f'<li class="nbm-step" data-state="{_safe(step["state"])}">'
        f'<span class="nbm-mark" aria-hidden="true">{step["mark"]}</span> '
        f'<span class="nbm-what"><strong>{_safe(step["name"])}</strong> '
        f'<span class="nbm-where">{_safe(step["notebook"])}</span></span> '
        f'<span class="nbm-bar"><span style="width:{100 * step["share"]:.0f}%"></span></span> '
        f'<span class="nbm-told">{_safe(step["word"])}, {_safe(step["told"])}</span> '
        f'<span class="nbm-clock">{_safe(step["took"])}</span></li>'
    )


def _html_metrics(metrics: Iterable[Mapping[str, str]]) -> str:
    items = "".join(
        f"<li><span>{_safe(item['name'])}</span> <strong>{_safe(item['value'])}</strong></li>"
        for item in metrics
    )
    return f'<ul class="nbm-metrics" aria-label="metrics">{items}</ul>' if items else ""


def html_cause(cause: Mapping[str, Any] | None) -> str:
    """Return why something ended as it did, where, and what helps."""
    if not cause:
        return ""
    place = f'<span class="nbm-where">{_safe(cause["place"])}</span>' if cause["place"] else ""
    hint = f"<p>{_safe(cause['hint'])}</p>" if cause["hint"] else ""
    message = "<br>".join(_safe(line) for line in cause["message"].split("\n"))
    return (
        f'<div class="nbm-cause"><p><strong>{_safe(cause["code"])}</strong> {place}</p>'
        f'<p class="nbm-message">{message}</p>{hint}</div>'
    )


def html_commands(commands: Iterable[Mapping[str, str]]) -> str:
    """Return what to type next."""
    items = "".join(
        f"<li><span>{_safe(item['what'])}</span> <code>{_safe(item['type'])}</code></li>"
        for item in commands
    )
    return f'<ul class="nbm-commands">{items}</ul>' if items else ""


def _html_log(lines: list[str]) -> str:
    if not lines:
        return ""
    body = "\n".join(map(_safe, lines))
    return (
        f"<details><summary>Log, last {_count(lines, 'line')}</summary>"
        f'<pre class="nbm-log">{body}</pre></details>'
    )


def _html_artifacts(artifacts: list[Mapping[str, str]]) -> str:
    if not artifacts:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_safe(item["name"])}</th><td>{_safe(item["size"])}</td>'
        f"<td><code>{_safe(item['digest'])}</code></td></tr>"
        for item in artifacts
    )
    return (
        f"<details><summary>{_count(artifacts, 'artifact')}</summary>"
        f'<table class="nbm-table"><tbody>{rows}</tbody></table></details>'
    )


def _count(items: list[Any], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"
