"""All checks of the project, in one command: style, types, floors, tests, tutorial notebooks.

`--fast` leaves out what runs whole jobs or a browser. The last line counts tests; skips are named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

BIN = Path(sys.executable).parent
TOP = Path(__file__).parent.parent


def check(title: str, *command: str) -> bool:
    """Run one check and tell how it went; what it says is shown when it is red."""
    began = time.monotonic()
    result = subprocess.run(
        command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    good = result.returncode == 0
    print(f"{'ok ' if good else 'RED'} {title} ({time.monotonic() - began:.1f} s)", flush=True)
    if not good:
        print(result.stdout, flush=True)
    return good


def tests(arguments: list[str]) -> tuple[int, Counter[str], Counter[str]]:
    """Run pytest and return its exit code, the counts, and the skips by reason."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"],
            cwd=TOP,
            check=False,
        ).returncode
        if not report.exists():
            return code or 1, counts, reasons
        for case in ET.parse(report).iter("testcase"):
            kinds = {child.tag: child for child in case}
            if "skipped" in kinds:
                counts["skipped"] += 1
                reasons[kinds["skipped"].get("message", "")] += 1
            elif "failure" in kinds or "error" in kinds:
                counts["failed"] += 1
            else:
                counts["passed"] += 1
    return code, counts, reasons


def main() -> int:
    """Run all checks."""
    fast = "--fast" in sys.argv
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    good = [
        check("style", str(BIN / "ruff"), "check", "."),
        check("format", str(BIN / "ruff"), "format", "--check", "."),
        check("floors", str(BIN / "lint-imports")),
        check("types", str(BIN / "basedpyright"), "--warnings"),
        check("pages of commands", sys.executable, "scripts/command_pages.py", "--check"),
        check("TypeScript records", sys.executable, "scripts/typescript_types.py", "--check"),
    ]
    arguments = ["tests", "-q"]
    if fast:
        arguments += ["-m", "not slow and not browser"]
    else:
        arguments += ["notebooks", "--nbval-lax", "--nbval-current-env"]
    code, counts, reasons = tests(arguments)
    named = "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
    failed = counts["failed"] + good.count(False) + (1 if code and not counts["failed"] else 0)
    print(
        f"tests: {counts['passed']} passed, {failed} failed, {counts['skipped']} skipped"
        f"{f' ({named})' if named else ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
