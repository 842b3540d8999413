"""What an image holds, told from inside: ``python -m nbmlops.images.about`` in the project's side.

Imports nothing but the standard library and :mod:`nbmlops.environment`'s way of reading packages.
"""

from __future__ import annotations

import json
import platform
import sys

from nbmlops import environment
from nbmlops._version import __version__


def about() -> dict[str, object]:
    """Return the interpreter and the packages that run this."""
    return {
        "python": sys.executable,
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "packages": environment.installed(),
        "nbmlops": __version__,
    }


if __name__ == "__main__":
    print(json.dumps(about(), sort_keys=True))  # noqa: T201 the answer
