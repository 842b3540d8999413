"""Write docs/commands/ and its index from the table of commands; `--check` only compares."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from nbmlops import records
from nbmlops.commands import TABLE, Command, table
from nbmlops.parser import option

DOCS = Path(__file__).parent.parent / "docs"
MADE = "This page is made from the docstrings and records: `python scripts/command_pages.py`."
HEAD = f"""# Commands

The same words on the command line (`nbmlops WORD`), in a notebook (`%mlops WORD`) and behind the
side panel. With `--json` a command writes one JSON document to standard output, whatever happens;
progress, warnings and logs go to standard error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | the work failed: a run failed, `check` or `doctor` found something, `replay`: red |
| 2 | wrong use or input |
| 3 | `monitor`: alert |
| 4 | `monitor`, `replay`: unknown |
| 5 | the outside is not there: launcher, store, network, disk |
| 130 | interrupted while watching; the run goes on |

A failure is `{{"error": {{"code", "message", "hint", "context"}}}}`, also on standard output, with
its exit code. Lists are `{{"items": [...], "next": null or "cursor"}}`. Times are RFC 3339, in UTC.
Numbers that are not finite are `null`. Keys are only ever added.

{MADE}
"""

# What people type, tried by the tests; RUN, OTHER, SWEEP, CALL stand for ids.
EXAMPLES = {
    "init": "nbmlops init my-project --example",
    "project": "nbmlops project",
    "check": "nbmlops check --fix\nnbmlops check notebooks/train.ipynb --level block",
    "ci": "nbmlops ci github",
    "doctor": "nbmlops doctor\nnbmlops doctor --repair",
    "train": "nbmlops train train -p max_depth=6\n"
    "nbmlops train notebooks/train.ipynb --detach\n"
    "nbmlops train train --junit report.xml --json > run.json",
    "sweep": "nbmlops sweep train -p max_depth=2,4,8\n"
    "nbmlops sweep train -p max_depth=2,4,8 -p n_estimators=50..400 --search bayes --trials 20"
    " --parallel 2",
    "runs": "nbmlops runs\nnbmlops runs --best accuracy --pipeline train --limit 5",
    "run": "nbmlops run RUN\nnbmlops run RUN --save ../out",
    "logs": "nbmlops logs RUN --follow",
    "compare": "nbmlops compare RUN OTHER",
    "cancel": "nbmlops cancel RUN",
    "build": "nbmlops build\nnbmlops build --push",
    "plan": "nbmlops plan train train --on docker\nnbmlops plan deploy cancer --on docker -o yaml",
    "rerun": "nbmlops rerun RUN",
    "models": "nbmlops models --model cancer",
    "model": "nbmlops model cancer\nnbmlops model cancer:1 --at 2026-05-01",
    "alias": "nbmlops alias cancer:1 best\nnbmlops alias cancer:1 best --remove",
    "sync": "nbmlops sync\nnbmlops sync --remote team",
    "gc": "nbmlops gc --dry-run\nnbmlops gc --keep 30d",
    "deploy": "nbmlops deploy cancer\nnbmlops deploy cancer:1",
    "rollback": "nbmlops rollback cancer\nnbmlops rollback cancer --to 1",
    "deployments": "nbmlops deployments",
    "undeploy": "nbmlops undeploy cancer",
    "call": "nbmlops call cancer - < records.json",
    "predict": "nbmlops predict cancer rows.parquet --out answers.parquet\n"
    "nbmlops predict cancer:1 rows.csv --out answers.csv --force",
    "actuals": "nbmlops actuals cancer diagnoses.csv\n"
    "nbmlops actuals cancer diagnoses.parquet --by client_id --label diagnosis",
    "replay": "nbmlops replay call/CALL\nnbmlops replay cancer --last 500 --against cancer:1",
    "trace": "nbmlops trace call/CALL\nnbmlops trace CALL --source\nnbmlops trace cancer:1",
    "monitor": "nbmlops monitor cancer --window 24h\n"
    "nbmlops monitor cancer --notebook report.ipynb\n"
    "nbmlops monitor cancer --window 24h --on docker",
    "scheduler": "nbmlops scheduler\nnbmlops scheduler --once",
}

# What the items of a list are.
ITEMS: dict[str, type[msgspec.Struct]] = {
    "runs": records.RunRecord,
    "models": records.ModelVersion,
    "deployments": records.DeploymentRecord,
}

EXITS = {
    table._run_exit: "1 when it ended otherwise than `succeeded`",  # noqa: SLF001
    table._check_exit: "1 when something of `--level` or above was found",  # noqa: SLF001
    table._health_exit: "1 when something was found",  # noqa: SLF001
    table._monitor_exit: "3 alert, 4 unknown",  # noqa: SLF001
    table._replay_exit: "1 red, 4 unknown",  # noqa: SLF001
}


def index() -> str:
    """Return the list of all commands."""
    groups: dict[str, list[Command]] = {}
    for row in TABLE:
        groups.setdefault(row.group, []).append(row)
    parts = [HEAD]
    for group, rows in groups.items():
        parts.append(f"\n## {group}\n\n| command | |\n|---|---|\n")
        parts += [f"| [{row.name}](commands/{row.name}.md) | {row.summary} |\n" for row in rows]
    return "".join(parts)


def page(row: Command) -> str:
    """Return the page of one command."""
    about, options = described(row)
    usage = " ".join(
        ("{}" if p.default is inspect.Parameter.empty else "[{}]").format(p.name.upper())
        for p in row.parameters
        if p.kind is not inspect.Parameter.KEYWORD_ONLY
    )
    lines = [f"# {row.name}", "", about, "", f"    nbmlops {row.name} {usage}".rstrip(), ""]
    told = "The lines as one JSON document" if row.streams else "One JSON document, see below"
    lines += [*options, f"- `--json`: {told}."]
    examples = "\n".join(f"    {line}" for line in EXAMPLES[row.name].splitlines())
    lines += ["", "## Example", "", examples]
    lines += ["", "## Exit codes", "", exit_codes(row)]
    lines += ["", "## Document", "", *document(row), "", "## Elsewhere", "", elsewhere(row)]
    return "\n".join([*lines, "", f"[All commands](../commands.md). {MADE}"]) + "\n"


def described(row: Command) -> tuple[str, list[str]]:
    """Return what the docstring says, and a line for each argument and option."""
    text = inspect.getdoc(row.function) or ""
    about, _, parameters = text.partition("\nParameters\n----------\n")
    options = {p.name for p in row.parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    lines: list[str] = []
    for line in parameters.splitlines():
        if line and not line.startswith(" "):
            name = line.strip()
            short = f"`{row.short[name]}`, " if name in row.short else ""
            shown = f"{short}`{option(name)}`" if name in options else f"`{name.upper()}`"
            lines.append(f"- {shown}:")
        elif line.strip():
            lines[-1] += f" {line.strip()}"
    return about.strip(), lines


def exit_codes(row: Command) -> str:
    """Return in words what the command can end with."""
    told = ["0 done"]
    if row.exit_code in EXITS:
        told.append(EXITS[row.exit_code])
    told += ["2 wrong use or input", "5 the outside is not there"]
    if any(parameter.name == "detach" for parameter in row.parameters):
        told.append("130 interrupted while watching")
    return "; ".join(told) + "."


def document(row: Command) -> list[str]:
    """Return the keys of the JSON document, and of the records within it."""
    if row.streams:
        return [
            '`{"items": [lines], "next": null}`; with `--follow` one `{"line": text}` a line.',
        ]
    answer = inspect.signature(row.function, eval_str=True).return_annotation
    lines: list[str] = []
    kinds = get_args(answer) or (answer,)
    if answer is records.Listing:
        kinds = (ITEMS[row.name],)
        lines += ['`{"items": [...], "next": null or "cursor"}`, each item', ""]
    for number, kind in enumerate(kinds):
        lines += [f"{'Or a' if number else 'A'} `{kind.__name__}`: {summary(kind)}", ""]
        lines += [*table(kind), ""]
    lines.pop()
    seen = dict.fromkeys(kinds)
    waiting = list(kinds)
    while waiting:
        inner = [kind for kind in within(waiting.pop(0)) if kind not in seen]
        seen.update(dict.fromkeys(inner))
        waiting += dict.fromkeys(inner)
    for kind in list(seen)[len(kinds) :]:
        lines += ["", f"`{kind.__name__}`: {summary(kind)}", "", *table(kind)]
    return lines


def table(kind: type[msgspec.Struct]) -> list[str]:
    """Return the keys of a record as a table."""
    rows = [f"| `{f.name}` | {spelled(f.type)} |" for f in msgspec.structs.fields(kind)]
    return ["| key | value |", "|---|---|", *rows]


def summary(kind: type[msgspec.Struct]) -> str:
    """Return the first line of a record's docstring."""
    return (inspect.getdoc(kind) or "").splitlines()[0].replace("``", "`")


def within(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Yield the records that a record holds, in the order of its keys."""
    for field in msgspec.structs.fields(kind):
        yield from named(field.type)


def named(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the records that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for inner in get_args(annotation):
        yield from named(inner)


WORDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "`null`",
    Any: "any",
}


def spelled(annotation: Any) -> str:
    """Return a type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin is types.UnionType or type(None) in inner:
        return ", or ".join(spelled(one) for one in inner)
    if origin in (tuple, dict):
        return f"{'list' if origin is tuple else 'object'} of {spelled(inner[origin is dict])}"
    if issubclass(annotation, Enum):
        return " or ".join(f'`"{one.value}"`' for one in annotation)
    return f"`{annotation.__name__}`" if issubclass(annotation, msgspec.Struct) else "time"


def elsewhere(row: Command) -> str:
    """Return how the other doors name the command."""
    method = "GET" if row.reads else "POST"
    told = f"In a notebook: `%mlops {row.name}`. Of the Jupyter server: `{method} nbmlops/api/"
    told += f"{row.name}`"
    if row.here_only:
        told += f", without {', '.join(f'`{name}`' for name in row.here_only)}"
    return f"{told}."


def pages() -> dict[Path, str]:
    """Return every page by its file."""
    made = {DOCS / "commands" / f"{row.name}.md": page(row) for row in TABLE}
    return {DOCS / "commands.md": index(), **made}


def main() -> int:
    """Write or compare the pages."""
    made = pages()
    gone = [path for path in (DOCS / "commands").glob("*.md") if path not in made]
    if "--check" in sys.argv:
        stale = [p for p, text in made.items() if not p.exists() or p.read_text() != text] + gone
        for path in stale:
            print(f"{path} is stale: run `python scripts/command_pages.py`")
        return 1 if stale else 0
    (DOCS / "commands").mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text)
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
