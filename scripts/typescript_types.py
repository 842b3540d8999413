"""Write the TypeScript types of the documents that the JupyterLab panel reads.

``python scripts/typescript_types.py`` renews ``labextension/src/records.ts`` from the records and
the answers of commands; with ``--check`` nothing is written, and the exit code is 1 when it is
stale.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec.inspect as types

from nbmlops import commands, records

TARGET = Path(__file__).parent.parent / "labextension" / "src" / "records.ts"

# What the HTTP API answers with; the records that they are made of follow by themselves.
ROOTS = (
    commands.InitAnswer,
    commands.ProjectAnswer,
    records.RunRecord,
    records.SweepRecord,
    records.Comparison,
    records.CheckReport,
    records.ModelVersion,
    records.DeploymentRecord,
    records.MonitorReport,
    records.Trace,
)

HEADER = """\
// Made by scripts/typescript_types.py from src/nbmlops/records and commands.py; do not edit.
// Times are RFC 3339 texts in UTC; numbers that are not finite arrive as null.
"""

SCALARS = {
    types.AnyType: "unknown",
    types.BoolType: "boolean",
    types.DateTimeType: "string",
    types.FloatType: "number",
    types.IntType: "number",
    types.NoneType: "null",
    types.StrType: "string",
}


def spelled(kind: types.Type) -> str:
    """Return how TypeScript spells a type.

    Raises
    ------
    TypeError
        For a type that JSON documents of records do not use.
    """
    match kind:
        case types.StructType() | types.EnumType():
            return kind.cls.__name__
        case types.LiteralType():
            return " | ".join(quoted(value) for value in kind.values)
        case types.UnionType():
            return " | ".join(spelled(part) for part in kind.types)
        case types.VarTupleType() | types.ListType():
            item = spelled(kind.item_type)
            return f"readonly ({item})[]" if " | " in item else f"readonly {item}[]"
        case types.DictType():
            return f"Readonly<Record<string, {spelled(kind.value_type)}>>"
    if type(kind) in SCALARS:
        return SCALARS[type(kind)]
    raise TypeError(f"no TypeScript for {kind!r}")


def quoted(value: object) -> str:
    """Return a literal as TypeScript writes it, texts in single quotes."""
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def parts(kind: types.Type) -> Iterator[types.Type]:
    """Yield the types that a type is directly made of."""
    match kind:
        case types.StructType():
            yield from (field.type for field in kind.fields)
        case types.UnionType():
            yield from kind.types
        case types.VarTupleType() | types.ListType():
            yield kind.item_type
        case types.DictType():
            yield kind.value_type


def reached(roots: tuple[type, ...]) -> list[types.StructType | types.EnumType]:
    """Return every named type that the roots are made of, in the order of their modules."""
    found: dict[str, types.StructType | types.EnumType] = {}
    waiting: list[types.Type] = [types.type_info(root) for root in roots]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, types.StructType | types.EnumType):
            if kind.cls.__name__ in found:
                continue
            found[kind.cls.__name__] = kind
        waiting.extend(parts(kind))
    order = [*vars(records), *vars(commands)]
    return sorted(found.values(), key=lambda kind: order.index(kind.cls.__name__))


def declaration(kind: types.StructType | types.EnumType) -> str:
    """Return the TypeScript declaration of a record or an enumeration."""
    about = f"/** {(inspect.getdoc(kind.cls) or kind.cls.__name__).splitlines()[0]} */"
    name = kind.cls.__name__
    if isinstance(kind, types.EnumType):
        return f"{about}\nexport type {name} = {alternatives(kind.cls)};\n"
    fields = "".join(
        f"  readonly {field.encode_name}: {spelled(field.type)};\n" for field in kind.fields
    )
    return f"{about}\nexport interface {name} {{\n{fields}}}\n"


def alternatives(enumeration: type[Enum]) -> str:
    """Return the values of an enumeration as a union of literals."""
    return " | ".join(quoted(str(member.value)) for member in enumeration)


def rendered() -> str:
    """Return the whole file."""
    return "\n".join([HEADER, *(declaration(kind) for kind in reached(ROOTS))])


def main() -> int:
    """Renew the file, or check that it is fresh."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    text = rendered()
    if parser.parse_args().check:
        fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        if not fresh:
            print(f"{TARGET.name} is stale: run python scripts/typescript_types.py")
        return 0 if fresh else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
