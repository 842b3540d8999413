"""Documentation: complete, true to the code, and typed as it stands."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

import nbmlops
from nbmlops import parser, project
from nbmlops.errors import NbmlopsError

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", *sorted(DOCS.rglob("*.md"))]
SOURCES = sorted(Path(nbmlops.__file__).parent.rglob("*.py"))


def test_the_pages_of_commands_are_current():
    result = subprocess.run(
        [sys.executable, str(TOP / "scripts" / "command_pages.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def sections(page):
    """Return the text below each heading of the second level, by the heading."""
    parts = re.split(r"(?m)^## (.+)$", page.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_setting_is_documented_and_nothing_else():
    told = sections(DOCS / "nbmlops-toml.md")
    assert set(told) == {f.name for f in msgspec.structs.fields(project.Settings)} | {
        "steps",
        "resources",
        "bounds",
        "alerts",
        "Environment variables",
    }
    for name, table in project._TABLES.items():
        if name:
            rows = re.findall(r"(?m)^\| `(\w+)` \|", told[name])
            assert rows == [field.name for field in msgspec.structs.fields(table)], name


def test_every_default_of_a_setting_is_as_documented():
    told = sections(DOCS / "nbmlops-toml.md")
    for name, table in project._TABLES.items():
        for field in msgspec.structs.fields(table) if name else ():
            default = field.default
            if isinstance(default, int | float | str) or default == ():
                said = json.dumps(default if default != () else [])
                found = re.search(rf"(?m)^\| `{field.name}` \| (.*?) \|", told[name])
                assert found is not None
                assert found[1] == f"`{said}`", (name, field.name)


def test_the_example_of_the_settings_is_valid(tmp_path):
    found = re.search(r"```toml\n(.*?)```", (DOCS / "nbmlops-toml.md").read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "nbmlops.toml").write_text(found[1])
    settings = project.read(tmp_path)
    assert [step.step for step in settings.pipelines["train"].steps] == ["data", "train", "report"]


def test_every_variable_that_people_may_set_is_documented():
    told = sections(DOCS / "nbmlops-toml.md")["Environment variables"]
    asked = {
        name
        for path in SOURCES
        for name in re.findall(r'environ\.get\(\s*"(NBMLOPS_\w+)"', path.read_text())
    }
    asked.discard("NBMLOPS_WORKER_TOKEN")  # a launcher gives it to its jobs
    assert len(asked) >= 4
    assert asked == set(re.findall(r"`(NBMLOPS_\w+)`", told))


def test_every_page_can_be_reached_and_every_link_leads_somewhere():
    linked = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            place = (page.parent / target).resolve()
            assert place.exists(), (page, target)
            linked.add(place)
    assert set(PAGES) - linked <= {TOP / "README.md", DOCS / "README.md"}


def test_the_table_of_floors_names_every_module_in_the_linter_s_order():
    text = (DOCS / "architecture.md").read_text().split("| floor |")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)/?`", row.split("|")[2]) for row in text.splitlines()[2:]]
    floors = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]
    place = {
        name: number
        for number, layer in enumerate(floors["contracts"][0]["layers"])
        for name in re.findall(r"\w+", layer)
        if not name.startswith("_")
    }
    assert sorted(name for row in rows for name in row) == sorted(place)
    highest = [min(place[name] for name in row) for row in rows]
    assert highest == sorted(highest)


def typed_in(text):
    """Return the command lines of a page: those that stand alone, and those within a sentence."""
    alone = re.findall(r"(?m)^ {4,}((?:nbmlops|%%?mlops) .*?)(?:  +#.*)?$", text)
    fenced = re.findall(r"(?m)^(%mlops .*?)(?:  +#.*)?$", text)
    within = re.findall(r"`((?:nbmlops|%mlops) [^`\n]+)`", text)
    return [*alone, *fenced, *within]


# What stands for a word, an option or nothing where a line is told in general.
GENERAL = re.compile(r"\bWORD\b|\.\.\.|\[[A-Z_]+\]|^(nbmlops|%mlops) [A-Z]+$")


def refuse_what_cannot_be_typed(line):
    """Fail where a command or an option is not there.

    A command may be named without what it needs, and a word may stand for a value.
    """
    words = shlex.split(re.split(r" [<>|] ?| && ", line)[0])[1:]
    try:
        parser.parse([word for word in words if word != "--json"])
    except NbmlopsError as error:
        if not re.search(r'requires an argument|after it$|invalid value "(X|KIND)"', error.message):
            pytest.fail(f"{line}: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_what_a_page_tells_to_type_can_be_typed(page):
    for line in typed_in(page.read_text()):
        if not GENERAL.search(line):
            refuse_what_cannot_be_typed(line)


def texts(source):
    """Yield the string literals of a module; what is computed in one stands as a word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_what_a_hint_tells_to_type_can_be_typed(path):
    for text in texts(path.read_text()):
        for line in re.findall(r"`(nbmlops [^`\n]+)`", text):
            if not GENERAL.search(line) and line.split()[1] not in ("X", "--help"):
                refuse_what_cannot_be_typed(line)


@pytest.mark.slow
def test_getting_started_works_as_typed(tmp_path):
    """Carry out the page from top to bottom; RUN and OTHER are the two newest runs."""
    lines = re.findall(r"(?m)^ {4}(\S.*)$", (DOCS / "getting-started.md").read_text())
    assert lines[:3] == [
        "pip install 'nbmlops[lab]'",
        "nbmlops init my-project --example",
        "cd my-project",
    ]
    folder = tmp_path
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(line):
        return subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    said = {}
    for typed in lines[1:]:
        line = typed
        if line.startswith("cd "):
            folder = folder / line.removeprefix("cd ")
            continue
        if re.search(r"\b(RUN|OTHER)\b", line):
            listed = json.loads(run("nbmlops runs --limit 2 --json").stdout)["items"]
            for word, item in zip(("RUN", "OTHER"), listed, strict=False):
                line = re.sub(rf"\b{word}\b", item["run_id"], line)
        result = run(line)
        # `monitor` may say alert or unknown: 60 calls are few.
        allowed = (0, 3, 4) if "monitor" in line else (0,)
        assert result.returncode in allowed, (line, result.stdout[-2000:], result.stderr[-2000:])
        said.setdefault(line.split()[1], []).append(result.stdout)
    assert "cached" in said["train"][1]
    assert "2 runs compared" in said["compare"][0]
    assert "4 of 4 trials" in said["sweep"][0]
    assert (folder.parent / "out" / "train.html").exists()
    assert (folder / ".gitlab-ci.yml").exists()
