"""Workflows: well-formed for the service that reads them, and carried out step by step."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uv
import yaml
from junitparser import Failure, JUnitXml

from nbmlops import commands, layout, workflows
from nbmlops import workspace as workspaces
from nbmlops._version import __version__
from nbmlops.errors import WrongUse
from nbmlops.workflows import Facts
from sources import git, notebook_text

KINDS = ("github", "gitlab")
SCHEMAS = {
    "github": ["--builtin-schema", "vendor.github-workflows"],
    "gitlab": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
STYLE = "{extends: default, rules: {line-length: {max: 140}}}"


def known(**changes):
    usual = {
        "folder": ".",
        "pipelines": ("train",),
        "branch": "main",
        "python": "3.11",
        "lock": None,
    }
    return Facts(**{**usual, **changes})


VARIANTS = {
    "plain": known(),
    "folder": known(folder='an "odd" folder/it\'s', branch="release/2.x"),
    "several": known(pipelines=("train", "report-eu", "p2"), lock="requirements.txt"),
    "uv": known(lock="uv.lock", python="3.10"),
    "pyproject": known(lock="pyproject.toml"),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def facts(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def files(kind, tmp_path):
    """Each variant as a file; one process looks at all of them."""
    paths = []
    for name, facts in VARIANTS.items():
        path = tmp_path / f"{name}.yml"
        path.write_text(workflows.text(kind, facts))
        paths.append(str(path))
    return paths


# --- well-formed --------------------------------------------------------------------------------


def passes(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_workflow_keeps_to_the_schema_of_its_service(kind, files):
    passes(sys.executable, "-m", "check_jsonschema", *SCHEMAS[kind], *files)


def test_a_workflow_is_tidy_yaml(files):
    passes(sys.executable, "-m", "yamllint", "--strict", "-d", STYLE, *files)


@pytest.mark.parametrize("kind", ["github"])
def test_a_workflow_of_github_passes_its_linter(files):
    linter = shutil.which("actionlint")
    if linter is None:
        pytest.skip("actionlint is not installed")
    passes(linter, "-no-color", *files)


def scripts(kind, text):
    """Return every script of a workflow."""
    document = yaml.safe_load(text)
    if kind == "github":
        steps = [step for job in document["jobs"].values() for step in job["steps"]]
        return [step["run"] for step in steps if "run" in step]
    jobs = [document["default"], *(j for j in document.values() if isinstance(j, dict))]
    keys = ("before_script", "script", "after_script")
    return [line for job in jobs for key in keys for line in job.get(key, ())]


def test_every_script_is_valid_bash_and_takes_no_expression_into_its_text(kind, facts):
    found = scripts(kind, workflows.text(kind, facts))
    assert len(found) >= 5
    for script in found:
        assert "${{" not in script, "what somebody types must not become a part of a program"
        result = subprocess.run(
            ["bash", "-n", "-c", script], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (script, result.stderr)


def test_a_workflow_installs_the_nbmlops_that_wrote_it(kind):
    document = yaml.safe_load(workflows.text(kind, known()))
    pinned = document["env" if kind == "github" else "variables"]["NBMLOPS"]
    assert pinned == f"nbmlops[lab]=={__version__}"


def test_one_pipeline_or_all_can_be_chosen_by_hand():
    facts = VARIANTS["several"]
    document = yaml.safe_load(workflows.text("github", facts))
    chosen = document["on"]["workflow_dispatch"]["inputs"]["pipeline"]
    assert chosen["options"] == ["all", *facts.pipelines]
    assert chosen["default"] == "all"
    assert pipelines_of_github(document, "") == list(facts.pipelines)
    assert pipelines_of_github(document, "all") == list(facts.pipelines)
    assert pipelines_of_github(document, "p2") == ["p2"]
    document = yaml.safe_load(workflows.text("gitlab", facts))
    assert document["variables"]["PIPELINE"]["options"] == ["all", *facts.pipelines]
    assert jobs_of_gitlab(document, "all") == [f"run {name}" for name in facts.pipelines]
    assert jobs_of_gitlab(document, "p2") == ["run p2"]


def test_the_project_s_tests_run_with_the_project_s_packages(kind):
    told = {name: workflows.text(kind, facts) for name, facts in VARIANTS.items()}
    assert "--with-requirements requirements.txt" in told["several"]
    assert "--with-requirements pyproject.toml" in told["pyproject"]
    assert "uv run --isolated --python 3.10 --frozen --with pytest" in told["uv"]
    assert "pip install pytest" in told["plain"]


# --- written ------------------------------------------------------------------------------------


def test_a_workflow_that_is_there_is_refused_and_stays(workspace, folder, kind):
    file = folder / layout.WORKFLOW_FILES[kind]
    assert workflows.write(workspace, kind)
    assert not workflows.write(workspace, kind), "the same again changes nothing"
    made = file.read_bytes()
    file.write_text("mine: true\n")
    with pytest.raises(WrongUse) as caught:
        workflows.write(workspace, kind)
    assert f"nbmlops ci {kind} --force" in caught.value.hint
    assert file.read_text() == "mine: true\n"
    assert workflows.write(workspace, kind, force=True)
    assert file.read_bytes() == made


def test_a_project_below_the_top_gets_its_workflow_at_the_top(folder, kind):
    inside = folder / "teams" / "eu one"
    inside.mkdir(parents=True)
    shutil.copy(folder / "nbmlops.toml", inside)
    opened = workspaces.open_at(inside)
    assert workflows.target(opened, kind) == folder / layout.WORKFLOW_FILES[kind]
    assert workflows.facts(opened).folder == "teams/eu one"
    opened.close()


def test_a_person_who_is_not_on_their_own_terminal_stays_in_their_folder(folder, kind):
    inside = folder / "teams"
    inside.mkdir()
    shutil.copy(folder / "nbmlops.toml", inside)
    context = commands.Context(start=inside, bounds=inside)
    with pytest.raises(WrongUse) as caught:
        commands.find("ci").function(context, kind)
    assert "from a terminal" in caught.value.hint
    assert not (folder / layout.WORKFLOW_FILES[kind]).exists()


def test_a_project_without_a_pipeline_has_nothing_to_run(folder):
    for settings, named in (
        ("", "no pipeline"),
        ("[pipelines.all]\nsteps=[{notebook='a'}]", "all"),
    ):
        (folder / "nbmlops.toml").write_text(f"[project]\nname = 'x'\n{settings}\n")
        opened = workspaces.open_at(folder)
        with pytest.raises(WrongUse) as caught:
            workflows.write(opened, "github")
        assert named in caught.value.message


def test_the_branch_is_the_remote_s_own(folder, tmp_path):
    git(folder, "branch", "--move", "trunk")
    git(tmp_path, "clone", "--quiet", str(folder), "clone")
    git(tmp_path / "clone", "switch", "--quiet", "--create", "feature/x")
    opened = workspaces.open_at(tmp_path / "clone")
    assert workflows.facts(opened).branch == "trunk"
    git(folder, "checkout", "--quiet", "--detach")
    assert workflows.facts(workspaces.open_at(folder)).branch == "main"


# --- carried out --------------------------------------------------------------------------------


@dataclass
class Done:
    """How a job went: its exit code, what it printed, and the folder of what it kept."""

    kept: Path
    code: int = 0
    said: str = ""
    ran: list[str] = field(default_factory=list)

    def run(self, script, folder, environment):
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.ran.append(script)
        self.said += f"$ {script}\n{result.stdout}{result.stderr}\n"
        self.code = self.code or result.returncode


def machine(home, **more):
    """Return the environment of a machine that has the tests' Python and knows nobody."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("GIT_", "NBMLOPS_"))}
    cache = [uv.find_uv_bin(), "cache", "dir"]
    told = subprocess.run(cache, capture_output=True, text=True, check=True)
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "UV_CACHE_DIR": told.stdout.strip(),
        "NBMLOPS_CACHE": str(layout.cache_dir(os.environ)),
        "CI": "true",
        **more,
    }


def checked_out(origin, folder):
    """Check out as services do: a detached HEAD, and nobody's name."""
    git(folder.parent, "clone", "--quiet", "--no-checkout", origin.as_uri(), folder.name)
    git(folder, "config", "user.useConfigOnly", "true")
    git(folder, "checkout", "--quiet", "--detach", git(folder, "rev-parse", "origin/main"))


INSTALL = 'python -m pip install "$NBMLOPS"'  # the tests' environment has it


def pipelines_of_github(document, chosen):
    """Return what the matrix's expression comes to; its form is the one that is known here."""
    words = " ".join(document["jobs"]["run"]["strategy"]["matrix"]["pipeline"].split())
    found = re.fullmatch(
        r"\$\{\{ fromJSON\(\(inputs\.pipeline \|\| 'all'\) == 'all' && '(.*)'"
        r""" \|\| format\('\["\{0\}"\]', inputs\.pipeline\)\) \}\}""",
        words,
    )
    assert found, words
    return json.loads(found[1]) if chosen in ("", "all") else [chosen]


def carried_out_on_github(origin, folder, parameters=""):
    """Carry out the workflow's jobs; the actions that it uses are known here."""
    document = yaml.safe_load(git(origin, "show", f"main:{layout.WORKFLOW_FILES['github']}"))
    assert document["jobs"]["run"]["needs"] == "check"
    jobs = [("check", None)]
    jobs += [("run", name) for name in pipelines_of_github(document, "")]
    done = []
    for name, pipeline in jobs:
        folder.mkdir(exist_ok=True)
        work, temp = folder / f"work-{name}", folder / f"temp-{name}"
        temp.mkdir()
        expressions = {
            "matrix.pipeline": pipeline,
            "inputs.parameters": parameters,
            "runner.temp": str(temp),
        }
        job = Done(folder / f"kept-{name}")
        for step in document["jobs"][name]["steps"]:
            if job.code and "if" not in step:
                continue
            assert step.get("if") in (None, "${{ !cancelled() }}")
            action = step.get("uses", "").partition("@")[0]
            if action == "actions/checkout":
                assert step["with"] == {"fetch-depth": 0}
                checked_out(origin, work)
            elif action == "actions/upload-artifact":
                shutil.copytree(filled(step["with"]["path"], expressions), job.kept)
            elif action:
                assert action in ("actions/setup-python", "actions/cache")
            elif step["run"] != INSTALL:
                environment = machine(folder, RUNNER_TEMP=str(temp), **document["env"])
                environment |= {k: filled(v, expressions) for k, v in step.get("env", {}).items()}
                where = work / document["defaults"]["run"]["working-directory"]
                job.run(step["run"], where, environment)
        done.append(job)
        if job.code:
            break
    return done


def filled(text, expressions):
    """Put values where expressions stand; an expression that is not known here fails the test."""
    return re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda found: expressions[found[1]], text)


def jobs_of_gitlab(document, chosen):
    """Return the names of the jobs of runs that take part."""
    return [
        name
        for name, job in document.items()
        if isinstance(job, dict)
        and job.get("extends") == ".run"
        and chosen in re.findall(r'"(.*?)"', job["rules"][0]["if"])
    ]


def carried_out_on_gitlab(origin, folder, parameters=""):
    """Carry out the jobs, stage by stage; each in a shell of its own, as a runner does."""
    document = yaml.safe_load(git(origin, "show", f"main:{layout.WORKFLOW_FILES['gitlab']}"))
    assert document["stages"] == ["check", "run"]
    done = []
    for name in ("check", *jobs_of_gitlab(document, "all")):
        job = {**document["default"], **document[".run"], **document[name]}
        if name == "check":
            job = {**document["default"], **document["check"]}
        folder.mkdir(exist_ok=True)
        work = folder / f"work-{name}"
        checked_out(origin, work)
        variables = {
            key: str(value["value"] if isinstance(value, dict) else value)
            for key, value in {**document["variables"], **job.get("variables", {})}.items()
        }
        assert variables["GIT_DEPTH"] == "0"
        variables["PARAMETERS"] = parameters
        variables = {k: v.replace("$CI_PROJECT_DIR", str(work)) for k, v in variables.items()}
        (cached,) = job["cache"]["paths"]
        for cache in ("PIP_CACHE_DIR", "UV_CACHE_DIR", "NBMLOPS_CACHE"):
            assert Path(variables.pop(cache)).is_relative_to(work / cached)
        environment = machine(folder, **variables)
        ended = Done(folder / f"kept-{name}")
        script = "\n".join(w for w in [*job["before_script"], *job["script"]] if w != INSTALL)
        ended.run(script, work, environment)
        ended.run("\n".join(job.get("after_script", [])), work, environment)
        for path in job.get("artifacts", {}).get("paths", ()):
            shutil.copytree(work / path, ended.kept)
        done.append(ended)
        if ended.code:
            break
    return done


CARRIED_OUT = {"github": carried_out_on_github, "gitlab": carried_out_on_gitlab}
FOLDER = "the analysis"


def typed(folder, *words):
    result = subprocess.run(
        [sys.executable, "-m", "nbmlops", *words], cwd=folder, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example in a subfolder of a repository, with a test and both workflows, committed."""
    top = tmp_path_factory.mktemp("example") / "top"
    top.mkdir()
    git(top, "init", "--quiet", "--initial-branch=main")
    project = top / FOLDER
    typed(top, "init", FOLDER, "--example")
    (project / "tests").mkdir()
    (project / "tests" / "test_rows.py").write_text(
        "import sklearn\n\n\ndef test_rows():\n    assert sklearn.__version__\n"
    )
    for one in KINDS:
        typed(project, "ci", one)
    committed(top)
    return top


def committed(top):
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "-m", "more")


def bare(top, folder):
    git(folder, "clone", "--quiet", "--bare", str(top), "origin.git")
    return folder / "origin.git"


@pytest.mark.slow
def test_every_step_of_a_workflow_works_in_a_clone(example, kind, tmp_path):
    origin = bare(example, tmp_path)
    done = CARRIED_OUT[kind](origin, tmp_path / "runner", parameters="-p max_depth=4 -p seed=7")
    for job in done:
        assert job.code == 0, job.said
    check, run = done
    assert "1 passed" in check.said
    document = json.loads((run.kept / "run.json").read_bytes())
    assert document["status"] == "succeeded"
    assert (document["commit"], document["dirty"]) == (git(origin, "rev-parse", "main"), False)
    assert (document["parameters"]["max_depth"], document["parameters"]["seed"]) == (4, 7)
    suite = next(iter(JUnitXml.fromstring((run.kept / "report.xml").read_bytes())))
    assert [case.name for case in suite] == ["data", "train"]
    assert (suite.failures, suite.errors, suite.skipped) == (0, 0, 0)
    for page in ("data.html", "train.html"):
        assert "<html" in (run.kept / "artifacts" / page).read_text()


@pytest.mark.slow
def test_a_notebook_that_fails_fails_its_job_and_is_kept(folder, kind, tmp_path):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", "depth: int = 3"), "print('so far')", "1 / 0")
    )
    typed(folder, "ci", kind)
    committed(folder)
    done = CARRIED_OUT[kind](bare(folder, tmp_path), tmp_path / "runner")
    assert [job.code for job in done] == [0, 1], done[-1].said
    run = done[-1]
    suite = next(iter(JUnitXml.fromstring((run.kept / "report.xml").read_bytes())))
    (case,) = suite
    (failure,) = case.result
    assert isinstance(failure, Failure)
    assert "ZeroDivisionError" in failure.message
    assert "train.ipynb, cell 3" in failure.text
    assert "so far" in (run.kept / "artifacts" / "train.html").read_text()
    assert "ZeroDivisionError" in run.said, "the log of the job says it as well"


@pytest.mark.slow
def test_a_mistake_fails_the_job_with_2_and_its_words_are_in_the_log(folder, kind, tmp_path):
    typed(folder, "ci", kind)
    committed(folder)
    done = CARRIED_OUT[kind](bare(folder, tmp_path), tmp_path / "runner", parameters="-p deph=1")
    assert [job.code for job in done] == [0, 2], done[-1].said
    assert "Did you mean `depth`?" in done[-1].said


@pytest.mark.slow
def test_a_broken_rule_stops_a_workflow_before_anything_runs(folder, kind, tmp_path):
    (folder / "train.ipynb").write_text("{")
    typed(folder, "ci", kind)
    committed(folder)
    done = CARRIED_OUT[kind](bare(folder, tmp_path), tmp_path / "runner")
    assert [job.code for job in done] == [1]
    assert "notebook-unreadable" in done[0].said


@pytest.mark.slow
def test_a_shallow_clone_with_a_detached_head_and_no_identity_trains(folder, tmp_path):
    (folder / "more.txt").write_text("more")
    committed(folder)
    git(tmp_path, "clone", "--quiet", "--depth=1", folder.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    git(shallow, "config", "user.useConfigOnly", "true")
    git(shallow, "checkout", "--quiet", "--detach")
    assert git(shallow, "rev-parse", "--is-shallow-repository") == "true"
    for words, dirty in ((["-p", "depth=4"], False), (["-p", "depth=5"], True)):
        if dirty:
            (shallow / "more.txt").write_text("changed")
        result = subprocess.run(
            [sys.executable, "-m", "nbmlops", "train", *words, "--json"],
            cwd=shallow,
            env=machine(tmp_path),
            capture_output=True,
            check=False,
        )
        document = json.loads(result.stdout)
        assert result.returncode == 0, document
        assert (document["status"], document["dirty"]) == ("succeeded", dirty)
        assert document["author"] == "nbmlops <nbmlops@localhost>"
        assert document["base_commit"] == git(shallow, "rev-parse", "HEAD")
