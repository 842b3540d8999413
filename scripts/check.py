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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

BIN = Path(sys.executable).parent
TOP = Path(__file__).parent.parent
REPEATED_LIMIT = 3
# The files of tests, two at a time and in their order: they wait for processes more than they
# compute, and the longest are not the last.
SIDE_BY_SIDE = ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"]


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


def run_pytest(arguments: list[str]) -> tuple[int, dict[str, str], Counter[str]]:
    """Run pytest and return its exit code, how each test ended, and the skips by reason."""
    ends: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"],
            cwd=TOP,
            check=False,
        ).returncode
        if not report.exists():
            return code or 1, ends, reasons
        for case in ET.parse(report).iter("testcase"):
            kinds = {child.tag: child for child in case}
            name = f"{case.get('classname')}::{case.get('name')}"
            if "failure" in kinds or "error" in kinds:
                ends[name] = "failed"
            elif "skipped" in kinds:
                ends[name] = "skipped"
                reasons[kinds["skipped"].get("message", "")] += 1
            else:
                ends.setdefault(name, "passed")
    return code, ends, reasons


def tests(arguments: list[str]) -> tuple[int, dict[str, str], Counter[str], list[str]]:
    """Run the tests; a few that fail among much else are run once more, alone, and named.

    Many start servers and jobs, kill them, and watch the clock; on a busy machine one in
    thousands may fail for that. It is told all the same, and more than a few are no accident.
    """
    code, ends, reasons = run_pytest([*arguments, *SIDE_BY_SIDE])
    failed = [name for name, end in ends.items() if end == "failed"]
    if not 0 < len(failed) <= REPEATED_LIMIT:
        return code, ends, reasons, []
    print(f"once more, alone: {', '.join(failed)}", flush=True)
    code, again, _ = run_pytest([*arguments, "--last-failed", "--last-failed-no-failures=none"])
    repeated = [name for name in failed if again.get(name) == "passed"]
    ends |= dict.fromkeys(repeated, "passed")
    return code, ends, reasons, repeated


# What looks at the code without running it.
CHECKS: dict[str, tuple[str, ...]] = {
    "style": (str(BIN / "ruff"), "check", "."),
    "format": (str(BIN / "ruff"), "format", "--check", "."),
    "floors": (str(BIN / "lint-imports"),),
    "types": (str(BIN / "basedpyright"), "--warnings"),
    "pages of commands": (sys.executable, "scripts/command_pages.py", "--check"),
    "TypeScript records": (sys.executable, "scripts/typescript_types.py", "--check"),
}


def red() -> list[str]:
    """Run the checks and return the titles of those that are red."""
    return [title for title, command in CHECKS.items() if not check(title, *command)]


def main() -> int:
    """Run all checks."""
    fast = "--fast" in sys.argv
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    arguments = ["tests", "-q", "--durations=25", "--durations-min=10"]
    if fast:
        arguments += ["-m", "not slow and not browser"]
    else:
        arguments += ["notebooks", "--nbval-lax", "--nbval-current-env"]
    with ThreadPoolExecutor(1) as beside:
        looked = beside.submit(red)
        code, ends, reasons, repeated = tests(arguments)
        wrong = looked.result()
    counts = Counter(ends.values())
    if wrong:
        print(f"RED, as told above: {', '.join(wrong)}")
    if repeated:
        print(f"passed only when repeated: {', '.join(repeated)}")
    named = "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
    failed = counts["failed"] + len(wrong) + (1 if code and not counts["failed"] else 0)
    print(
        f"tests: {counts['passed']} passed, {failed} failed, {counts['skipped']} skipped"
        f"{f' ({named})' if named else ''}"
        f"{f', {len(repeated)} only when repeated' if repeated else ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
