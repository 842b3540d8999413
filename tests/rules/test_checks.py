"""Checking and mending whole projects: levels, files, fixes, the command, the hook."""

import io
import json
import os
import random
import string
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbmlops import cli, notebook, projects, render, rules
from nbmlops import workspace as workspaces
from nbmlops.errors import InvalidSettings, RuleBroken, WrongUse
from nbmlops.rules import TABLE, mending
from sources import SETTINGS, git, notebook_text

TOKEN = "ghp_" + "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=36))
ROOT = Path(__file__).parents[2]


def found(folder, **options):
    opened = workspaces.open_at(folder)
    try:
        return rules.check(opened, **options)
    finally:
        opened.close()


def codes(report, path=None):
    return [f.code for f in report.findings if path in (None, f.path)]


def enforced(folder, *notebooks, **options):
    opened = workspaces.open_at(folder)
    try:
        return rules.enforce(opened, notebooks or ["train.ipynb"], **options)
    finally:
        opened.close()


def set_rules(folder, **levels):
    rows = "".join(f'{code.replace("_", "-")} = "{level}"\n' for code, level in levels.items())
    (folder / "nbmlops.toml").write_text(f"{SETTINGS}\n[rules]\n{rows}")


def by_cli(*words):
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = cli.run(["check", *words], as_json=True)
    return json.loads(out.getvalue()), code


# --- the table --------------------------------------------------------------------------------


def test_every_rule_has_a_page_and_every_page_a_rule():
    pages = {path.stem for path in (ROOT / "docs/rules").glob("*.md")} - {"README"}
    assert pages == {rule.code for rule in TABLE}
    index = (ROOT / "docs/rules/README.md").read_text()
    for rule in TABLE:
        page = (ROOT / f"docs/rules/{rule.code}.md").read_text()
        assert page.startswith(f"# {rule.code}\n\nLevel: `{rule.level}`")
        assert f"| [{rule.code}]({rule.code}.md) | {rule.level} | {rule.title} |" in index


def test_rules_are_named_once_and_in_kebab_case():
    names = [rule.code for rule in TABLE]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() and name == name.lower() for name in names)


def test_an_unknown_rule_is_refused_with_its_line_and_the_nearest(folder):
    set_rules(folder, outputs="off", hiden_state="block")
    for ask in (found, enforced):
        with pytest.raises(InvalidSettings) as caught:
            ask(folder)
        assert "`hiden-state` (line 10)" in caught.value.message
        assert "`hidden-state`" in caught.value.hint


def test_an_unknown_level_is_refused(folder):
    set_rules(folder, outputs="loud")
    with pytest.raises(InvalidSettings):
        found(folder)


@pytest.mark.parametrize("level", ["advise", "warn", "block"])
def test_each_rule_takes_each_level_and_off(folder, level):
    (folder / "train.ipynb").write_text(notebook_text("from os import *", outputs=True))
    set_rules(folder, outputs=level, star_import="off")
    report = found(folder)
    assert [f.level for f in report.findings if f.code == "outputs"] == [level]
    assert "star-import" not in codes(report)


# --- the project ------------------------------------------------------------------------------


@pytest.mark.parametrize("example", [True, False])
def test_a_fresh_project_is_clean(tmp_path, example):
    projects.init(tmp_path / "fresh", example=example)
    report = found(tmp_path / "fresh")
    assert report.findings == ()
    assert "All clear" in render.text(render.view(report))
    written = (tmp_path / "fresh/nbmlops.toml").read_text()
    for rule in TABLE:
        assert f'# {rule.code} = "{rule.level}"' in written


def test_the_settings_that_init_writes_are_read_when_uncommented(tmp_path):
    projects.init(tmp_path / "fresh", example=False)
    path = tmp_path / "fresh/nbmlops.toml"
    path.write_text(
        "".join(
            line.removeprefix("# ") if ' = "' in line else line
            for line in path.read_text().splitlines(keepends=True)
        )
    )
    opened = workspaces.open_at(tmp_path / "fresh")
    assert opened.settings.rules == {rule.code: rule.level for rule in TABLE}
    assert rules.levels(opened.settings, opened.root) == opened.settings.rules


def test_one_broken_notebook_hides_nothing_of_the_others(folder):
    (folder / "a.ipynb").write_bytes(b"{broken")
    (folder / "b.ipynb").write_text(notebook_text("nope"))
    (folder / "c.ipynb").write_text(json.dumps({"nbformat": 3, "metadata": {}, "worksheets": []}))
    report = found(folder)
    assert codes(report, "a.ipynb") == ["notebook-unreadable"]
    assert codes(report, "b.ipynb") == ["hidden-state"]
    assert codes(report, "c.ipynb") == ["old-format"]
    assert [f.path for f in report.findings] == sorted(f.path for f in report.findings)
    assert all(f.message and f.fix for f in report.findings)


def test_a_step_that_is_not_there_is_found(folder):
    (folder / "train.ipynb").unlink()
    assert codes(found(folder), "train.ipynb") == ["notebook-missing"]
    with pytest.raises(RuleBroken, match=r"train\.ipynb"):
        enforced(folder)


def test_ignored_notebooks_and_checkpoints_are_left_alone(folder):
    (folder / "data").mkdir()
    (folder / "data/x.ipynb").write_text("{")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints/train-checkpoint.ipynb").write_text("{")
    assert "notebook-unreadable" not in codes(found(folder))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ["lock-missing"]),
        ({"requirements.txt": "pandas==2.2.3\n# comment\n\n-r other.txt\n"}, []),
        ({"requirements.txt": 'numpy==1.26.4 ; python_version < "3.13"  # why\n'}, []),
        (
            {"requirements.txt": "a @ https://example.org/a.whl\nb[x]==1.0 \\\n  --hash=sha256:0"},
            [],
        ),
        ({"requirements.txt": "pandas\nnumpy>=2\nscipy==1.*\n"}, ["lock-unpinned"]),
        ({"pyproject.toml": "[project]\ndependencies = ['pandas>=2']"}, ["lock-unpinned"]),
        ({"pyproject.toml": "[project]\ndependencies = ['pandas>=2']", "uv.lock": ""}, []),
        ({"pyproject.toml": "[tool.x]\n"}, ["lock-missing"]),
        ({"pyproject.toml": "not TOML ["}, ["lock-missing"]),
    ],
)
def test_locks_are_looked_at(folder, files, expected):
    for name, text in files.items():
        (folder / name).write_text(text)
    assert [code for code in codes(found(folder)) if code.startswith("lock")] == expected


def test_open_versions_are_named(folder):
    (folder / "requirements.txt").write_text("pandas==2.2.3\nnumpy>=2\nscipy\n")
    finding = next(f for f in found(folder).findings if f.code == "lock-unpinned")
    assert (finding.path, finding.line) == ("requirements.txt", 2)
    assert finding.message.endswith("numpy, scipy")


def test_a_dirty_tree_is_advised_of_and_can_block(folder):
    set_rules(folder, dirty_tree="block")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "rules")
    assert "dirty-tree" not in codes(found(folder))
    enforced(folder)
    (folder / "new file.txt").write_text("x")
    git(folder, "mv", "train.ipynb", "moved.ipynb")
    finding = next(f for f in found(folder).findings if f.code == "dirty-tree")
    assert finding.message.startswith("2 changes are in no commit")
    git(folder, "mv", "moved.ipynb", "train.ipynb")
    with pytest.raises(RuleBroken, match=r"new file\.txt"):
        enforced(folder)


def test_pointers_of_lfs_are_found_before_a_run_too(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"
    (folder / "model.bin").write_text(pointer)
    assert "lfs-pointer" in codes(found(folder), "model.bin")
    (folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    git(folder, "-c", "filter.lfs.clean=", "add", ".")
    with pytest.raises(RuleBroken) as caught:
        enforced(folder)
    assert "git lfs pull" in caught.value.hint
    (folder / "model.bin").write_text("the file itself" * 10)
    assert "lfs-pointer" not in codes(found(folder))
    enforced(folder)


def test_large_untracked_files_are_found(folder):
    (folder / "big.csv").write_bytes(b"x" * (11 * 2**20))
    assert codes(found(folder), "big.csv") == ["large-file"]
    git(folder, "add", "big.csv")
    assert codes(found(folder), "big.csv") == []


def test_secrets_in_any_file_of_the_snapshot_are_found_and_never_told(folder):
    (folder / "conf.py").write_text(f"a = 1\nkey = '{TOKEN}'\n")
    (folder / "train.ipynb").write_text(notebook_text(f"key = '{TOKEN}'"))
    (folder / "data").mkdir()
    (folder / "data/ignored.py").write_text(f"key = '{TOKEN}'\n")
    os.symlink("conf.py", folder / "link.py")
    report = found(folder)
    places = [(f.path, f.cell, f.line) for f in report.findings if f.code == "secret"]
    assert places == [("conf.py", None, 2), ("train.ipynb", 1, 1)]
    assert TOKEN not in repr(report)
    with pytest.raises(RuleBroken) as caught:
        enforced(folder)
    assert TOKEN not in repr(caught.value.document())


def test_the_value_of_a_named_secret_is_found_where_it_is_set(folder, monkeypatch):
    text = SETTINGS.replace('name = "tiny"', 'name = "tiny"\nsecrets = ["DB_KEY"]')
    (folder / "nbmlops.toml").write_text(text)
    (folder / "train.ipynb").write_text(notebook_text("url = 'swordfish'"))
    assert "secret" not in codes(found(folder))
    monkeypatch.setenv("DB_KEY", "swordfish")
    finding = next(f for f in found(folder).findings if f.code == "secret")
    assert (finding.path, finding.cell) == ("train.ipynb", 1)
    assert "`DB_KEY`" in finding.message


def test_a_project_below_the_repositorys_top_is_checked_with_its_own_paths(folder):
    below = folder / "below"
    below.mkdir()
    (below / "nbmlops.toml").write_text(SETTINGS)
    (below / "train.ipynb").write_text(notebook_text("nope"))
    (folder / "conf.py").write_text(f"key = '{TOKEN}'\n")
    report = found(below)
    assert codes(report, "train.ipynb") == ["parameters-missing", "hidden-state"]
    assert codes(report, "../conf.py") == ["secret"]


# --- before a run -----------------------------------------------------------------------------


def test_before_a_run_warnings_are_returned_and_blocks_raised(folder):
    (folder / "train.ipynb").write_text(notebook_text("from os import *\nnope", outputs=True))
    (folder / "other.ipynb").write_text("{")
    assert [f.code for f in enforced(folder)] == []  # a star import: any name may be there
    (folder / "train.ipynb").write_text(notebook_text("nope", outputs=True))
    assert [(f.code, f.level) for f in enforced(folder)] == [("hidden-state", "warn")]
    set_rules(folder, hidden_state="block", outputs="block")
    with pytest.raises(RuleBroken) as caught:
        enforced(folder)
    assert (caught.value.code, caught.value.exit_code) == ("rule-broken", 2)
    assert "train.ipynb, cell 1" in caught.value.message
    assert "[hidden-state]" in caught.value.message
    assert [f["code"] for f in caught.value.context["findings"]] == ["hidden-state"]
    set_rules(folder, hidden_state="off", outputs="block")
    assert enforced(folder) == ()


def test_a_secret_in_an_output_does_not_stop_a_run(folder):
    document = json.loads(notebook_text("1", outputs=True))
    document["cells"][0]["outputs"][0]["text"] = TOKEN
    (folder / "train.ipynb").write_text(json.dumps(document))
    assert "secret" in codes(found(folder))
    assert enforced(folder) == ()


# --- mending ----------------------------------------------------------------------------------


def jupyter_text(document):
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def test_a_fix_changes_nothing_but_what_it_says(folder):
    document = json.loads(notebook_text("a = 'é'\n", "b = 2", outputs=True))
    document["cells"][1]["id"] = document["cells"][0]["id"]
    document["metadata"]["zoom"] = 1.5
    before = jupyter_text(document)
    path = folder / "train.ipynb"
    path.write_text(before)
    path.chmod(0o640)
    report = found(folder, fix=True)
    # Without execution counts there is no order of execution either.
    assert {f.code for f in report.fixed} == {"duplicate-cell-ids", "outputs", "out-of-order"}
    assert not {f.code for f in report.fixed} & set(codes(report))
    assert path.stat().st_mode & 0o777 == 0o640
    fresh = json.loads(path.read_text())
    assert fresh["cells"][1]["id"] not in ("", document["cells"][0]["id"])
    for cell, id_ in zip(document["cells"], [c["id"] for c in fresh["cells"]], strict=True):
        cell.update(outputs=[], execution_count=None, id=id_)
    assert path.read_text() == jupyter_text(document)
    after = path.read_bytes()
    assert found(folder, fix=True).fixed == ()
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    "written",
    [
        lambda d: json.dumps(d, indent=1) + "\n",
        lambda d: json.dumps(d, indent=1, ensure_ascii=False),
        lambda d: json.dumps(d, indent=2) + "\n\n",
        lambda d: json.dumps(d, indent="\t"),
        json.dumps,
        lambda d: json.dumps(d, separators=(",", ":")),
        lambda d: json.dumps(d, indent=1).replace("\n", "\r\n"),
        lambda d: json.dumps(d, indent=4, sort_keys=True),
    ],
)
def test_indentation_order_escapes_and_line_ends_stay(written):
    document = json.loads(notebook_text("a = 'é 😀'", outputs=True))
    data = written(document).encode()
    assert mending.rewritten(data, []) == data
    mending.strip_outputs(document)
    assert mending.rewritten(data, [mending.strip_outputs]) == written(document).encode()


def test_an_old_format_is_converted_with_its_sources(folder):
    worksheet = {
        "cells": [
            {"cell_type": "code", "language": "python", "input": ["a = 1\n", "b"], "outputs": [],
             "collapsed": False, "metadata": {}, "prompt_number": 3},
            {"cell_type": "markdown", "source": ["# T"], "metadata": {}},
        ],
        "metadata": {},
    }  # fmt: skip
    document = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [worksheet]}
    path = folder / "old.ipynb"
    path.write_text(json.dumps(document))
    report = found(folder, fix=True)
    assert [f.code for f in report.fixed] == ["old-format"]
    parsed = notebook.parse(path.read_bytes(), "old.ipynb")
    assert [cell.source for cell in parsed.cells] == ["a = 1\nb", "# T"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace('"nbformat": 4', '"nbformat": 4, "nbformat": 4'), "twice"),
        (lambda text: text.replace('"nbformat": 4', '"x": 1e400, "nbformat": 4'), "1e400"),
    ],
)
def test_what_cannot_be_written_back_is_left_and_said(folder, spoil, reason):
    path = folder / "train.ipynb"
    path.write_text(spoil(notebook_text("1", outputs=True)))
    before = path.read_bytes()
    report = found(folder, fix=True)
    finding = next((f for f in report.findings if f.path == "train.ipynb"), None)
    assert path.read_bytes() == before
    assert report.fixed == ()
    assert finding is not None
    if finding.code != "notebook-unreadable":
        outputs = next(f for f in report.findings if f.code == "outputs")
        assert not outputs.fixable
        assert reason in outputs.fix


def test_a_link_out_of_the_repository_is_not_written_through(folder, tmp_path):
    outside = tmp_path / "outside.ipynb"
    outside.write_text(notebook_text("1", outputs=True))
    os.symlink(outside, folder / "link.ipynb")
    before = outside.read_bytes()
    report = found(folder, fix=True)
    finding = next(f for f in report.findings if f.path == "link.ipynb" and f.code == "outputs")
    assert "outside of the repository" in finding.fix
    assert outside.read_bytes() == before
    assert (folder / "link.ipynb").is_symlink()


def test_a_secret_in_an_output_goes_with_the_outputs(folder):
    document = json.loads(notebook_text("1", outputs=True))
    document["cells"][0]["outputs"][0]["text"] = TOKEN
    (folder / "train.ipynb").write_text(json.dumps(document))
    report = found(folder, fix=True)
    assert "secret" in [f.code for f in report.fixed]
    assert TOKEN not in (folder / "train.ipynb").read_text()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "cells",
                    "metadata",
                    "id",
                    "source",
                    "outputs",
                    "tags",
                    "cell_type",
                    "nbformat",
                    "execution_count",
                    "kernelspec",
                    "language_info",
                    "name",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
sources = st.sampled_from(
    [
        "a = 1",
        "nope",
        "%time b = 2",
        "%%capture c\nd",
        "from os import *",
        "x = = 1",
        "",
        "'\\u00e9é'",
    ]
) | st.text(max_size=30)
cells = st.fixed_dictionaries(
    {
        "cell_type": st.sampled_from(["code", "markdown", "raw"]),
        "id": st.sampled_from(["a", "b", "c"]),
        "source": sources | st.lists(sources, max_size=3),
        "metadata": st.sampled_from([{}, {"tags": ["parameters"]}, {"collapsed": True}]),
        "outputs": st.lists(json_values, max_size=2),
        "execution_count": st.none() | st.integers(0, 9),
    }
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
@example(data=b'{"cells": true, "nbformat": 0}')
@example(data=b'{"cells": 3, "nbformat": 3, "worksheets": 1}')
@example(data=b'{"cells": [3], "nbformat": 4, "metadata": 1}')
def test_no_bytes_make_a_check_fail(folder, data):
    (folder / "train.ipynb").write_bytes(data)
    for finding in found(folder, files=[Path("train.ipynb")], fix=True).findings:
        assert finding.path == "train.ipynb"
    (folder / "train.ipynb").write_bytes(b'{"nbformat": 4, "cells": [' + data + b"]}")
    found(folder, files=[Path("train.ipynb")], fix=True)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(cells, max_size=5), indent=st.sampled_from([None, 1, 2]))
def test_a_fix_keeps_every_source_and_twice_is_as_once(folder, made, indent):
    path = folder / "train.ipynb"
    text = json.dumps(
        {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=indent
    )
    path.write_text(text)
    first = found(folder, files=[path], fix=True)
    once = path.read_bytes()
    assert [c["source"] for c in json.loads(once)["cells"]] == [c["source"] for c in made]
    second = found(folder, files=[path], fix=True)
    assert path.read_bytes() == once
    assert second.fixed == ()
    assert second.findings == first.findings
    if not any(f.code == "notebook-unreadable" or "Not mended" in f.fix for f in first.findings):
        assert not any(f.fixable for f in first.findings)


# --- the command and the hook -----------------------------------------------------------------


def test_the_exit_code_follows_the_level(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "train.ipynb").write_text(notebook_text("nope"))
    document, code = by_cli()
    assert code == 1
    assert set(document["findings"][0]) == {
        "code", "level", "path", "cell", "line", "message", "fix", "fixable",
    }  # fmt: skip
    assert {f["code"] for f in document["findings"]} >= {"hidden-state", "lock-missing"}
    assert by_cli("--level", "block")[1] == 0
    assert by_cli("--level", "advise", "nbmlops.toml")[1] == 0
    (folder / "train.ipynb").write_text(notebook_text(("parameters", "a = 1"), outputs=True))
    assert by_cli()[1] == 0
    assert by_cli("--level", "advise")[1] == 1
    document, code = by_cli("train.ipynb", "--fix", "--level", "advise")
    assert ([f["code"] for f in document["fixed"]], document["findings"], code) == (
        ["outputs"],
        [],
        0,
    )


def test_named_files_are_looked_at_alone(folder, monkeypatch):
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    (folder / "below/a.py").write_text(f"k = '{TOKEN}'\n")
    (folder / "train.ipynb").write_text(notebook_text("nope"))
    document, code = by_cli("a.py", "--level", "block")
    assert [(f["path"], f["code"]) for f in document["findings"]] == [("below/a.py", "secret")]
    assert code == 1
    document, _ = by_cli("../train.ipynb")
    assert {f["path"] for f in document["findings"]} == {"train.ipynb"}


@pytest.mark.parametrize("file", ["nope.ipynb", "../../etc/passwd", "/etc/passwd", ".", "a\0b"])
def test_a_file_that_is_none_of_the_projects_is_refused(folder, file):
    with pytest.raises(WrongUse):
        found(folder, files=[folder / file])


def test_people_see_findings_by_file_with_what_mends_them(folder):
    (folder / "train.ipynb").write_text(notebook_text("nope", outputs=True))
    shown = render.text(render.view(found(folder)), 160)
    for word in (
        "train.ipynb",
        "hidden-state",
        "cell 1, line 1",
        "nbmlops check --fix",
        "findings (",
    ):
        assert word in shown
    markup = render.html(render.view(found(folder)))
    assert "<table>" in markup


def test_the_published_hook_has_what_the_package_asks_for():
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert "id: nbmlops-check" in hook
    assert "entry: nbmlops check --level block" in hook
    lab = (ROOT / "pyproject.toml").read_text()
    wanted = next(line for line in hook.splitlines() if "additional_dependencies" in line)
    for requirement in json.loads(wanted.partition(": ")[2]):
        assert f'"{requirement}"' in lab


@pytest.mark.slow
def test_as_a_pre_commit_hook_it_stops_a_commit_with_a_secret(folder, tmp_path):
    program = Path(sys.executable).parent / "nbmlops"
    (folder / ".pre-commit-config.yaml").write_text(
        "repos:\n  - repo: local\n    hooks:\n      - id: nbmlops-check\n        name: check\n"
        f"        entry: {program} check --level block\n        language: system\n"
        "        require_serial: true\n"
    )
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
    words = [sys.executable, "-m", "pre_commit", "install"]
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)

    def commit():
        git(folder, "add", ".")
        words = ["git", "commit", "-m", "x"]
        return subprocess.run(
            words, cwd=folder, env=environment, check=False, capture_output=True, text=True
        )

    (folder / "train.ipynb").write_text(notebook_text(f"key = '{TOKEN}'"))
    refused = commit()
    assert refused.returncode != 0
    assert "secret" in refused.stdout + refused.stderr
    assert TOKEN not in refused.stdout + refused.stderr
    (folder / "train.ipynb").write_text(notebook_text("key = 1"))
    accepted = commit()
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
