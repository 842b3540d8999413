"""Build and push the image that ``make test-cluster`` runs, and print its reference by digest.

``python scripts/cluster_image.py HOST:PORT``. It is the image of the example project, made by the
product's own recipe. Its base is ``$NBMLOPS_TEST_BASE``, else one made of the Python that runs
this, since no public registry may be at hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "tests"))
BUNDLE = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))


def main(registry: str) -> int:
    """Build, push, print."""
    import engines
    from nbmlops import sites, submission, workspace

    base = os.environ.get("NBMLOPS_TEST_BASE") or engines.base_image()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "example"
        subprocess.run(
            [sys.executable, "-m", "nbmlops", "init", str(project), "--example"],
            check=True,
            stdout=sys.stderr,
        )
        told = [f'base = "{base}"', f'registry = "{registry}"', 'packages = ["s3fs"]']
        if BUNDLE.exists():
            (project / "ca.pem").write_bytes(BUNDLE.read_bytes())
            told.append('ca_bundle = "ca.pem"')
        settings = project / "nbmlops.toml"
        settings.write_text(settings.read_text() + "\n[images]\n" + "\n".join(told) + "\n")
        opened = workspace.open_at(project, say=lambda line: print(line, file=sys.stderr))
        built = sites.build(opened, submission.capture(opened).commit, push=True)
        opened.close()
    print(built.image)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
