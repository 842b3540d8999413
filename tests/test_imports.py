"""Import time is part of the product: nothing heavy is loaded before it is used."""

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp", "alembic", "docker", "git", "kubernetes", "matplotlib", "nbclient",
    "nbconvert", "nbformat", "numpy", "pandas", "papermill", "scipy", "sklearn", "skops",
    "sqlalchemy",
}  # fmt: skip
LOAD_EXT = """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic('load_ext', 'nbmlops')
"""


@pytest.mark.parametrize(
    "program",
    [
        "import nbmlops",
        "import nbmlops; nbmlops.log_metrics",
        "import nbmlops.runner",
        "import nbmlops.worker",
        "from nbmlops import cli; cli.run(['--help'], as_json=False)",
        "from nbmlops import cli; cli.run(['train', '--help'], as_json=False)",
        LOAD_EXT,
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(program):
    script = f"{program}\nimport sys; print('loaded', *sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in result.stderr.split("loaded ", 1)[1].split()}
    assert loaded & HEAVY == set()
