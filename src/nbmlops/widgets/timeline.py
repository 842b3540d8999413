"""A model's decisions as a picture of characters: a row for each version, a column for each."""

from __future__ import annotations

from collections.abc import Sequence

from nbmlops.records import Decision, ModelReport

_COLUMNS = 24
_ROWS = 12
_WIDTH = 2
LEGEND = "● registered  ━ has the traffic  ↩ rolled back to  ◆ alias set  ◇ taken  ✗ taken back"


def drawn(report: ModelReport) -> str:
    """Return the picture: what has the traffic after each decision, newest version on top.

    A column is a decision in the order of the ledger, not a length of time; of a long history the
    newest are shown.
    """
    history = report.history
    states = _states(history)
    first = max(0, len(history) - _COLUMNS)
    versions = [item.version for item in report.versions][:_ROWS]
    label = max(len(f"{report.model}:{number}") for number in versions)
    standing = _standing(report)
    lines: list[str] = []
    for number in versions:
        cells = "".join(
            _cell(number, history[place], states[place], states[place - 1] if place else {})
            for place in range(first, len(history))
        )
        told = standing.get(number, "")
        lines.append(f"{f'{report.model}:{number}':<{label}}  {cells}  {told}".rstrip())
    if len(report.versions) > _ROWS:
        lines.append(f"… and {len(report.versions) - _ROWS} older versions")
    shown = history[first:]
    if shown:
        width = _WIDTH * len(shown)
        begin, end = (f"{one.at.astimezone():%Y-%m-%d}" for one in (shown[0], shown[-1]))
        between = "" if begin == end else f"{end:>{max(width - len(begin), len(end) + 1)}}"
        lines.append(f"{'':<{label}}  {begin}{between}")
    lines.append(LEGEND)
    return "\n".join(lines)


def _standing(report: ModelReport) -> dict[int, str]:
    """Return what is said behind each row: endpoints and aliases."""
    told: dict[int, str] = {}
    for item in report.versions:
        names = [*(f"→ {name}" for name in item.endpoints), *(f"@{name}" for name in item.aliases)]
        told[item.version] = " ".join(names)
    return told


def _states(history: Sequence[Decision]) -> list[dict[str, int]]:
    """Return after each decision which version has which endpoint's traffic."""
    states: list[dict[str, int]] = []
    now: dict[str, Decision] = {}
    before: dict[str, Decision | None] = {}
    for decision in history:
        name = decision.endpoint or ""
        if decision.kind in ("deployed", "rolled-back"):
            before[name] = now.get(name)
            now[name] = decision
        elif name in now and now[name].deployment_id == decision.deployment_id:
            left = before.get(name) if decision.kind == "taken-back" else None
            del now[name]
            if left is not None:
                now[name] = left
        states.append({endpoint: standing.version for endpoint, standing in now.items()})
    return states


def _cell(number: int, decision: Decision, state: dict[str, int], before: dict[str, int]) -> str:
    serves, served = number in state.values(), number in before.values()
    line = "━" if serves else " "
    if decision.version != number:
        return ("━" if served and serves else line if serves else " ") + line
    mark = {
        "version": "●",
        "deployed": "━" if serves else " ",
        "rolled-back": "↩",
        "undeployed": "╸" if served else " ",
        "taken-back": "✗",
        "alias": "◇" if decision.removed else "◆",
    }[decision.kind]
    return mark + line
