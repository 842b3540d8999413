"""The process that goes on with a sweep: ``python -m nbmlops.driver PROJECT SWEEP``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nbmlops import layout, sweeps, workspace


def main() -> int:
    """Go on with the sweep until it has ended; return the exit code of the job."""
    for name in (layout.INBOX_VARIABLE, layout.OUTBOX_VARIABLE, layout.ATTEMPT_VARIABLE):
        os.environ.pop(name, None)
    opened = workspace.open_at(Path(sys.argv[1]))
    try:
        sweeps.drive(opened, sys.argv[2])
    finally:
        opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
