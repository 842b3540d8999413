"""Checking: the notebooks and files of a project against the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbmlops import layout
from nbmlops.errors import RuleBroken, Unmendable
from nbmlops.records import CheckFinding, CheckReport, Level
from nbmlops.rules import contents, leaks, mending, subjects
from nbmlops.rules import files as files_of
from nbmlops.rules.leaks import Leak
from nbmlops.rules.rule import Fault, Rule, Session, Subject, Tree
from nbmlops.rules.table import GRAVITY, NOTEBOOK_MISSING, TABLE, is_at_least, levels
from nbmlops.workspace import Workspace

_SECRETS = (leaks.TOKEN, leaks.PASSWORD)


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Checker:
    """The rules of one project, at their levels, and what they need to look."""

    workspace: Workspace
    levels: Mapping[str, str]
    steps: frozenset[str]
    secrets: Mapping[str, str]

    def found(self, rule: Rule, faults: Iterable[Fault], path: str) -> Iterator[CheckFinding]:
        for fault in faults:
            level: Level = self.levels[rule.code]  # pyright: ignore[reportAssignmentType]
            lower = fault.level is not None and is_at_least(level, fault.level)
            yield CheckFinding(
                code=rule.code,
                level=fault.level if fault.level and lower else level,
                path=fault.path or path,
                cell=fault.cell,
                line=fault.line,
                message=fault.message,
                fix=fault.fix,
                fixable=rule.mend is not None or rule.code == "old-format",
            )

    def is_on(self, rule: Rule, at: Level = "advise") -> bool:
        return is_at_least(self.levels[rule.code], at)

    def read(
        self, path: str, data: bytes, *, session: Session | None = None, outputs: bool = True
    ) -> Subject:
        found: list[Leak] = []
        if any(self.levels[code] != "off" for code in _SECRETS):
            found = leaks.secrets_in(data, path, self.secrets, outputs=outputs)
        is_step = path in self.steps
        return subjects.read(data, path, is_step=is_step, leaks=tuple(found), session=session)

    def in_notebook(self, subject: Subject) -> Iterator[CheckFinding]:
        for rule in TABLE:
            if rule.in_notebook is not None and self.is_on(rule):
                yield from self.found(rule, rule.in_notebook(subject), subject.path)

    def before_a_run(self, subject: Subject) -> Iterator[CheckFinding]:
        for rule in TABLE:
            if rule.in_notebook is None or rule.not_of_runs or not self.is_on(rule, "warn"):
                continue
            yield from self.found(rule, rule.in_notebook(subject), subject.path)

    def in_project(self, tree: Tree, rules: Iterable[Rule]) -> Iterator[CheckFinding]:
        for rule in rules:
            if rule.in_project is not None:
                yield from self.found(rule, rule.in_project(tree), ".")

    def data(
        self, at: Level, say: Callable[[str], None], *, fetch: bool
    ) -> tuple[tuple[str, Fault], ...]:
        """Return the faults of the data, if a rule of them is on."""
        rules = [rule for rule in TABLE if rule.code in contents.CODES]
        if not any(self.is_on(rule, at) for rule in rules):
            return ()
        return tuple(contents.look(self.workspace, say=say, fetch=fetch))

    def missing(self, path: str, what: str) -> Iterator[CheckFinding]:
        rule = next(rule for rule in TABLE if rule.code == NOTEBOOK_MISSING)
        fix = f"Correct its name in {layout.SETTINGS_FILE}, or bring the file back from git."
        if self.is_on(rule):
            yield from self.found(rule, [Fault(what, fix)], path)


def _checker(workspace: Workspace) -> _Checker:
    settings = workspace.settings
    steps = {
        Path(step.notebook).as_posix() for p in settings.pipelines.values() for step in p.steps
    }
    values = {n: workspace.environ[n] for n in settings.project.secrets if n in workspace.environ}
    return _Checker(workspace, levels(settings, workspace.root), frozenset(steps), values)


def check(
    workspace: Workspace,
    *,
    files: Sequence[Path] | None = None,
    fix: bool = False,
    level: Level = "warn",
    say: Callable[[str], None] = _silent,
) -> CheckReport:
    """Look at the whole project, or at some files of it, with every rule that is on.

    Parameters
    ----------
    workspace
        The project.
    files
        Only these, and none of the rules of the project as a whole: notebooks are held against
        all rules of notebooks, other files against those of secrets.
    fix
        Mend what can be mended without a change of what the code does.
    level
        What the person counts as a failure; it is kept in the report.
    say
        Takes a line of progress.

    Raises
    ------
    InvalidSettings
        When ``[rules]`` names a rule that there is not.
    WrongUse
        When a file is not there, or outside of the project's repository.
    """
    checker = _checker(workspace)
    tree = files_of.tree(workspace, checker.steps, files)
    found: list[CheckFinding] = []
    fixed: list[CheckFinding] = []
    for number, path in enumerate(tree.notebooks, 1):
        if number % 50 == 0:
            say(f"looking at notebooks: {number} of {len(tree.notebooks)}")
        kept, mended = _of_notebook(checker, path, fix=fix)
        found.extend(kept)
        fixed.extend(mended)
    tree = replace(tree, leaks=tuple(_leaks(checker, tree, say)))
    rules = [rule for rule in TABLE if checker.is_on(rule)]
    if files is not None:
        rules = [rule for rule in rules if rule.code in _SECRETS]
    else:
        tree = replace(tree, data=checker.data("advise", say, fetch=False))
    found.extend(checker.in_project(tree, rules))
    return CheckReport(
        findings=tuple(sorted(found, key=_place)),
        fixed=tuple(sorted(fixed, key=_place)),
        level=level,
        notebooks=len(tree.notebooks),
        files=sum(tree.path_of(name) not in tree.notebooks for name in tree.files),
    )


def _place(finding: CheckFinding) -> tuple[str, int, int, int, str]:
    return (
        finding.path,
        finding.cell or 0,
        finding.line or 0,
        -GRAVITY[finding.level],
        finding.code,
    )


def enforce(
    workspace: Workspace,
    notebooks: Iterable[str],
    *,
    sessions: Mapping[str, Session] | None = None,
    changed: Mapping[str, bytes] | None = None,
) -> tuple[CheckFinding, ...]:
    """Hold the notebooks of a pipeline against the rules that warn or block, before they run.

    Outputs are not looked at: a snapshot has none. Of the project as a whole only what is cheap to
    know is asked; data that have not changed since they were looked at are not read again.

    Parameters
    ----------
    workspace
        The project.
    notebooks
        The notebooks' paths from the project's folder.
    sessions
        What a kernel has executed, by the notebook's path.
    changed
        The files that a snapshot will hold and no commit of the person's does, by their path from
        the repository's top: they are looked through for secrets.

    Returns
    -------
    tuple of CheckFinding
        The warnings.

    Raises
    ------
    RuleBroken
        When a rule that blocks is broken.
    InvalidSettings
        When ``[rules]`` names a rule that there is not.
    """
    checker = _checker(workspace)
    paths = tuple(dict.fromkeys(notebooks))
    checker = replace(checker, steps=checker.steps | set(paths))
    found: list[CheckFinding] = []
    for path in paths:
        try:
            data = (workspace.root / path).read_bytes()
        except OSError as error:
            found.extend(checker.missing(path, f"it cannot be read: {error.strerror}"))
            continue
        subject = checker.read(path, data, session=(sessions or {}).get(path), outputs=False)
        found.extend(checker.before_a_run(subject))
    tree = Tree(workspace.root, workspace.repo, paths)
    others = {n: d for n, d in (changed or {}).items() if tree.path_of(n) not in paths}
    tree = replace(
        tree,
        leaks=tuple(
            (name, leak)
            for name, data in others.items()
            for leak in leaks.secrets_in(data, name, checker.secrets, outputs=False)
        ),
        data=checker.data("warn", workspace.say, fetch=True),
    )
    rules = [
        rule
        for rule in TABLE
        if (rule.at_start or rule.code in _SECRETS) and checker.is_on(rule, "warn")
    ]
    found.extend(checker.in_project(tree, rules))
    found.sort(key=_place)
    blocking = [finding for finding in found if finding.level == "block"]
    if blocking:
        raise _broken(blocking)
    return tuple(finding for finding in found if finding.level == "warn")


def _broken(blocking: Sequence[CheckFinding]) -> RuleBroken:
    first = blocking[0]
    where = first.path if first.cell is None else f"{first.path}, cell {first.cell}"
    more = f" (and {len(blocking) - 1} more: `nbmlops check`)" if blocking[1:] else ""
    return RuleBroken(
        f"{where}: {first.message} [{first.code}]{more}",
        f'{first.fix} Or let it pass: `{first.code} = "warn"` in [rules] of'
        f" {layout.SETTINGS_FILE}.",
        findings=[
            {"code": f.code, "path": f.path, "cell": f.cell, "line": f.line, "message": f.message}
            for f in blocking
        ],
    )


def _leaks(checker: _Checker, tree: Tree, say: Callable[[str], None]) -> Iterator[tuple[str, Leak]]:
    """Yield the secrets in the files that are no notebooks of the project."""
    if all(checker.levels[code] == "off" for code in _SECRETS):
        return
    for number, name in enumerate(tree.files, 1):
        if name.endswith(".ipynb") and tree.path_of(name) in tree.notebooks:
            continue
        if number % 500 == 0:
            say(f"looking for secrets: {number} of {len(tree.files)} files")
        data = files_of.content(tree.repo.top / name)
        for leak in leaks.secrets_in(data, name, checker.secrets) if data else ():
            yield name, leak


def _of_notebook(
    checker: _Checker, path: str, *, fix: bool
) -> tuple[list[CheckFinding], list[CheckFinding]]:
    """Return what is found in a notebook, and what has been mended."""
    file = checker.workspace.root / path
    try:
        data = file.read_bytes()
    except OSError as error:
        return list(checker.missing(path, f"it cannot be read: {error.strerror}")), []
    found = list(checker.in_notebook(checker.read(path, data)))
    if not fix or not any(finding.fixable for finding in found):
        return found, []
    try:
        mended = _mended(checker, path, data, found)
        mending.write(file, checker.workspace.repo.top, data, mended)
    except Unmendable as error:
        return [_left(finding, error) if finding.fixable else finding for finding in found], []
    left = list(checker.in_notebook(checker.read(path, mended)))
    still = {(finding.code, finding.cell, finding.line, finding.message) for finding in left}
    gone = [f for f in found if (f.code, f.cell, f.line, f.message) not in still]
    return left, gone


def _left(finding: CheckFinding, error: Unmendable) -> CheckFinding:
    from nbmlops.records import replace as changed

    return changed(finding, fixable=False, fix=f"Not mended: {error.message}. {error.hint}")


def _mended(checker: _Checker, path: str, data: bytes, found: Sequence[CheckFinding]) -> bytes:
    if any(finding.code == "old-format" for finding in found):
        data = mending.convert(data)
        found = list(checker.in_notebook(checker.read(path, data)))
    broken = {finding.code for finding in found}
    mends = [rule.mend for rule in TABLE if rule.mend is not None and rule.code in broken]
    return mending.rewritten(data, mends) if mends else data
