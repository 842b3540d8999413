import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from nbmlops import environment
from nbmlops.errors import EnvironmentFailed


def test_without_a_lock_the_current_interpreter_serves_with_its_packages(tmp_path):
    made = environment.ensure(environment.plan({}), tmp_path, print)
    assert made.python == sys.executable
    assert made.source is None
    assert made.packages["msgspec"] == metadata.version("msgspec")


def test_the_id_covers_the_lock():
    first = environment.plan({"requirements.txt": b"six==1.17.0\n"})
    assert first == environment.plan({"requirements.txt": b"six==1.17.0\n"})
    assert (
        first.environment_id
        != environment.plan({"requirements.txt": b"six==1.16.0\n"}).environment_id
    )
    assert "skops" not in first.requirements
    assert "skops" in environment.plan({"requirements.txt": b"scikit-learn==1.5\n"}).requirements


def test_the_kit_is_the_running_nbmlops_and_the_same_sources_give_the_same_wheel(tmp_path):
    first = environment.build_kit(tmp_path / "a")
    second = environment.build_kit(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "nbmlops/tracking.py" in names
    assert not any("labextension" in name or name.endswith(".pyc") for name in names)


def test_pins_are_those_that_are_installed_with_all_that_they_need():
    lines = environment.pinned(["ipykernel"]).splitlines()
    assert f"ipykernel=={metadata.version('ipykernel')}" in lines
    assert f"traitlets=={metadata.version('traitlets')}" in lines
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(names)


@pytest.mark.slow
def test_two_versions_of_a_library_live_side_by_side_with_the_kit(tmp_path):
    seen = {}
    for version in ("1.16.0", "1.17.0"):
        plan = environment.plan({"requirements.txt": f"six=={version}\n".encode()})
        made = environment.ensure(plan, tmp_path, print)
        again = environment.ensure(plan, tmp_path, lambda _: pytest.fail("made again"))
        assert made == again
        program = "import six, nbmlops.tracking, ipykernel; print(six.__version__)"
        seen[version] = subprocess.run(
            [made.python, "-I", "-c", program], check=True, capture_output=True, text=True
        ).stdout.strip()
        assert made.packages["six"] == version
        assert "papermill" not in made.packages
    assert seen == {"1.16.0": "1.16.0", "1.17.0": "1.17.0"}


@pytest.mark.slow
def test_a_lock_that_cannot_be_installed_is_refused_in_the_installers_words(tmp_path):
    with pytest.raises(EnvironmentFailed, match="six"):
        environment.ensure(
            environment.plan({"requirements.txt": b"six==1.16.0\nsix==1.17.0\n"}), tmp_path, print
        )
    assert not list((tmp_path / "environments").glob("e-*/"))
