"""Write docs/commands.md from the table of commands; `--check` only compares."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from nbmlops.commands import TABLE, Command

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """# Commands

The same words on the command line (`nbmlops WORD`), in a notebook (`%mlops WORD`) and behind the
side panel. With `--json` a command writes one JSON document to standard output, whatever happens.

Exit codes: 0 done; 1 the work failed; 2 wrong use or input; 3 `monitor`: alert; 4 `monitor`:
unknown; 5 the outside is not there; 130 interrupted while watching (the run goes on).

The words are completed by Tab: in a notebook at once, with the names of pipelines, parameters, runs
and models; in a shell (bash, zsh, fish) after `nbmlops --install-completion`.

This page is made from the docstrings: `python scripts/command_pages.py`.
"""


def page() -> str:
    """Return the whole page."""
    groups: dict[str, list[Command]] = {}
    for row in TABLE:
        groups.setdefault(row.group, []).append(row)
    parts = [HEAD]
    for group, rows in groups.items():
        parts.append(f"\n## {group}\n")
        parts.extend(section(row) for row in rows)
    return "".join(parts)


def section(row: Command) -> str:
    """Return what is said of one command."""
    text = inspect.getdoc(row.function) or ""
    about, _, parameters = text.partition("\nParameters\n----------\n")
    usage = " ".join(
        ("[{}]" if p.default is not inspect.Parameter.empty else "{}").format(p.name.upper())
        for p in row.parameters
        if p.kind is not inspect.Parameter.KEYWORD_ONLY
    )
    options = {p.name for p in row.parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    lines = [
        f"\n### {row.name}\n",
        f"    nbmlops {row.name} {usage}".rstrip(),
        "",
        about.strip(),
        "",
    ]
    name = ""
    for line in parameters.splitlines():
        if line and not line.startswith(" "):
            name = line.strip()
            short = f"`{row.short[name]}`, " if name in row.short else ""
            shown = f"{short}`--{name}`" if name in options else f"`{name.upper()}`"
            lines.append(f"- {shown}:")
        elif line.strip():
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or compare the page."""
    made = page()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text() == made
        if not same:
            print(f"{PAGE} is stale: run `python scripts/command_pages.py`")
        return 0 if same else 1
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
