"""What tests make projects of: notebooks from cells, git, settings."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    """Run git and return what it prints, without stripping anything but the last newline."""
    output = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True).stdout
    return os.fsdecode(output).removesuffix("\n")


def notebook_text(*cells: str | tuple[str, str], outputs: bool = False) -> str:
    """Return a notebook; a cell is its source, or a pair of a tag and the source."""
    made = []
    for number, cell in enumerate(cells):
        tag, source = cell if isinstance(cell, tuple) else ("", cell)
        made.append(
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {"tags": [tag]} if tag else {},
                "execution_count": 3 if outputs else None,
                "outputs": [{"output_type": "stream", "name": "stdout", "text": "secret\n"}]
                if outputs
                else [],
                "source": source,
            }
        )
    metadata = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


SETTINGS = """
[project]
name = "tiny"

[pipelines.train]
steps = [{ notebook = "train.ipynb" }]
"""
