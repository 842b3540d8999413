"""Files of rows, a chunk at a time: Parquet, CSV, JSON lines.

A chunk is plain columns of plain values: numbers, truth values, texts, ``None`` where a value is
missing (an empty cell of CSV, a null, a NaN). CSV tells no types, so its cells are texts until
somebody who knows a column's type has :func:`told` them.
"""

from nbmlops.sheets.reading import (
    CHUNK_ROWS,
    FORMATS,
    Chunk,
    InvalidFile,
    arrow,
    format_of,
    names,
    parquet,
    read,
    require,
    told,
)
from nbmlops.sheets.writing import Added, Sheet, written

__all__ = [
    "CHUNK_ROWS",
    "FORMATS",
    "Added",
    "Chunk",
    "InvalidFile",
    "Sheet",
    "arrow",
    "format_of",
    "names",
    "parquet",
    "read",
    "require",
    "told",
    "written",
]
