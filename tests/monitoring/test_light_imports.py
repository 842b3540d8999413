from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import nbmlops.monitoring as top
for found in pkgutil.walk_packages(top.__path__, top.__name__ + "."):
    importlib.import_module(found.name)
heavy = {"pandas", "scipy", "matplotlib", "plotly", "sklearn", "pyarrow"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_all_of_monitoring_is_imported_without_a_heavy_library():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
