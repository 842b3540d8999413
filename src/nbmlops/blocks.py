"""What people are shown as blocks, and two ways to show those: as text, and as HTML."""

from __future__ import annotations

import html as markup
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Title:
    """A line that says what follows."""

    text: str


@dataclass(frozen=True)
class Line:
    """A sentence, or a command to type next."""

    text: str


@dataclass(frozen=True)
class Fields:
    """Names and values, one pair a line."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows under headers; ``folded`` is what stands for them in HTML until they are opened."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: str | None = None


@dataclass(frozen=True)
class Code:
    """Source, as it stands."""

    text: str


@dataclass(frozen=True)
class Diff:
    """A unified diff; what was added and removed is coloured besides its sign."""

    text: str


Block = Title | Line | Fields | Table | Code | Diff


def printable(line: str) -> str:
    """Return a line without the control characters that could steer a terminal, colours kept."""
    kept = re.sub(r"\x1b(?!\[[0-9;]*m)", "", line)
    return "".join(c for c in kept if c >= " " or c in "\t\x1b")


def _clean(text: str) -> str:
    """Return text of several lines without control characters."""
    return "\n".join(printable(line).replace("\x1b", "") for line in text.split("\n"))


def text(blocks: Iterable[Block], width: int = 100, *, colour: bool = False) -> str:
    """Return the blocks as text of at most ``width`` columns."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
        force_jupyter=False,
    )
    for block in blocks:
        if isinstance(block, Title):
            console.print(Text(_clean(block.text), style="bold"), soft_wrap=True)
        elif isinstance(block, Line | Code):
            console.print(Text(_clean(block.text)), soft_wrap=True)
        elif isinstance(block, Diff):
            for line in _clean(block.text).splitlines():
                console.print(Text(line, style=_diff_style(line)), soft_wrap=True)
        elif isinstance(block, Fields):
            length = max((len(name) for name, _ in block.pairs), default=0)
            for name, value in block.pairs:
                label = Text(f"  {name.ljust(length)}  ", style="dim")
                console.print(label + Text(_clean(value)), soft_wrap=True)
        else:
            table = RichTable(box=None, pad_edge=False, header_style="dim")
            for header in block.headers:
                table.add_column(header, overflow="fold")
            for row in block.rows:
                table.add_row(*(Text(_clean(cell)) for cell in row))
            console.print(table)
    output = console.file
    return output.getvalue() if isinstance(output, io.StringIO) else ""


def html(blocks: Iterable[Block]) -> str:
    """Return the blocks as HTML without script, everything in them escaped."""
    parts = [_html(block) for block in blocks]
    return f'<div class="nbmlops">{"".join(parts)}</div>'


def _html(block: Block) -> str:
    escape = markup.escape
    if isinstance(block, Title):
        return f"<p><strong>{escape(block.text)}</strong></p>"
    if isinstance(block, Line):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Code):
        return f'<pre style="font-family:monospace">{escape(block.text)}</pre>'
    if isinstance(block, Diff):
        lines = "\n".join(map(_diff_line, block.text.splitlines()))
        return f'<pre style="font-family:monospace">{lines}</pre>'
    if isinstance(block, Fields):
        block = Table((), block.pairs)
    head = "".join(f'<th style="text-align:left">{escape(h)}</th>' for h in block.headers)
    cell = '<td style="text-align:left">'
    rows = "".join(
        f"<tr>{''.join(f'{cell}{escape(value)}</td>' for value in row)}</tr>" for row in block.rows
    )
    heads = f"<thead><tr>{head}</tr></thead>" if head else ""
    table = f"<table>{heads}<tbody>{rows}</tbody></table>"
    if block.folded is None:
        return table
    return f"<details><summary>{escape(block.folded)}</summary>{table}</details>"


def _diff_style(line: str) -> str:
    if line.startswith("@@"):
        return "cyan"
    return {"+": "green", "-": "red"}.get(line[:1], "")


def _diff_line(line: str) -> str:
    text = markup.escape(line)
    # What was inserted and deleted stays told where a host strips the styles.
    if line.startswith("+"):
        return f'<ins style="text-decoration:none;background:rgba(46,160,67,0.25)">{text}</ins>'
    if line.startswith("-"):
        return f'<del style="text-decoration:none;background:rgba(248,81,73,0.25)">{text}</del>'
    return text
