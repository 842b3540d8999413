"""The whole story on the example, as typed: notebook to traced, watched service.

Ends with `demo ok: ...` and leaves nothing running. The commands are those of the README.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NBMLOPS = Path(sys.executable).with_name("nbmlops")


def type_in(
    folder: Path, *words: str, codes: tuple[int, ...] = (0,), show: bool = True, stdin: str = ""
) -> dict:
    """Type a command as a person would, show what it says, and return its document."""
    if show:
        shown = " ".join(shlex.quote(w) if len(w) < 60 else "'{...}'" for w in words)
        print(f"\n$ nbmlops {shown}", flush=True)
    result = subprocess.run(
        [NBMLOPS, *words, "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        input=stdin.encode(),
        check=False,
    )
    document = json.loads(result.stdout)
    if result.returncode not in codes:
        print(json.dumps(document, indent=2))
        sys.exit(f"demo failed: nbmlops {words[0]} ended with {result.returncode}")
    return document


def rows_of_the_data_set() -> list[dict[str, float]]:
    """Return rows that look as the training data does."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer(as_frame=True).data
    return table.sample(250, random_state=1).to_dict("records")


def main() -> None:
    """Tell the story."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nbmlops-demo-") as temporary:
        folder = Path(temporary)
        made = type_in(folder, "init", "my-project", "--example")
        print(f"  {made['path']} at commit {made['commit'][:8]}")
        project = folder / "my-project"
        run = type_in(project, "train", "train", "-p", "max_depth=6")
        print(f"  {run['run_id']} {run['status']}: {run['metrics']} -> {run['model_versions']}")
        try:
            story(project, run, began)
        finally:
            type_in(project, "undeploy", "cancer", codes=(0, 2), show=False)


def story(project: Path, run: dict, began: float) -> None:
    """Serve the model of the run, call it, trace the call, watch it."""
    served = type_in(project, "deploy", "cancer")
    print(f"  {served['model']}:{served['version']} at {served['url']} (try {served['url']}/docs)")
    rows = rows_of_the_data_set()
    call = type_in(project, "call", "cancer", json.dumps(rows[0]))
    print(f"  {call['predictions'][0]} call {call['call_id']}")
    type_in(project, "call", "cancer", "-", stdin=json.dumps(rows))
    trace = type_in(project, "trace", f"call/{call['call_id']}")
    print(f"  call -> {trace['deployment']['deployment_id']} -> {run['model_versions'][0]}")
    print(f"       -> {trace['run']['run_id']} -> commit {trace['snapshot']['commit'][:8]}")
    print(f"       -> {trace['snapshot']['notebook']}, cell {trace['snapshot']['cell']}:")
    print("".join(f"          {line}\n" for line in trace["snapshot"]["source"].splitlines()))
    assert trace["complete"], trace["missing"]
    report = type_in(project, "monitor", "cancer")
    for name, answer in report["questions"].items():
        print(f"  {name:12} {answer['answer']:8} {answer['reason']}")
    type_in(project, "undeploy", "cancer")
    health = type_in(project, "doctor")
    print(f"  {health['invariants']}")
    print(f"\n{time.monotonic() - began:.0f} s")
    print(
        f"demo ok: run={run['run_id']} commit={run['commit']}"
        f" accuracy={run['metrics']['accuracy']:.4f} url={served['url']} call={call['call_id']}"
    )


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
