"""Magics: which of them run Python, which bring no names, and what a call of one stands for."""

from __future__ import annotations

import ast
import warnings

# Their text is Python that runs in the notebook's own namespace.
_PYTHON_MAGICS = frozenset(
    {"time", "prun", "memit", "mprun", "lprun", "snakeviz", "debug", "pyinstrument"}
)
# Their text is Python, and the names that it defines are gone afterwards.
TIMERS = frozenset({"timeit"})
PYTHON_CELL_MAGICS = _PYTHON_MAGICS | TIMERS | {"capture", "scalene", "wandb"}
# They bring no names. After any other magic it is unknown which names there are.
HARMLESS_MAGICS = frozenset({
    "aimport", "alias", "autoawait", "autocall", "autoindent", "automagic", "autoreload",
    "bookmark", "cat", "cd", "cls", "colors", "conda", "config", "cp", "dhist", "dirs",
    "doctest_mode", "env", "gui", "history", "killbgscripts", "ldir", "less", "lf", "lk",
    "ll", "load_ext", "logoff", "logon", "logstart", "logstate", "logstop", "ls", "lsmagic",
    "lx", "magic", "mamba", "man", "matplotlib", "micromamba", "mkdir", "mlops", "more", "mv",
    "notebook", "page", "pdb", "pdoc", "pfile", "pinfo", "pinfo2", "pip", "popd", "pprint",
    "precision", "psearch", "psource", "pushd", "pwd", "quickref", "recall", "reload_ext",
    "rerun", "reset", "rm", "rmdir", "save", "set_env", "sx", "system", "tb", "tensorboard",
    "unalias", "unload_ext", "uv", "version_information", "watermark", "who", "who_ls",
    "whos", "writefile", "xdel", "xmode",
})  # fmt: skip
HARMLESS_CELL_MAGICS = frozenset({
    "!", "HTML", "SVG", "bash", "cmd", "file", "html", "javascript", "js", "latex",
    "markdown", "mermaid", "mlops", "perl", "pypy", "python", "python2", "python3", "ruby",
    "script", "sh", "svg", "sx", "system", "writefile",
})  # fmt: skip
# What may be asked of `get_ipython()` without a name coming of it.
_HARMLESS_ATTRIBUTES = frozenset({
    "config", "display_formatter", "enable_gui", "enable_matplotlib", "events",
    "extension_manager", "getoutput", "kernel", "magic", "register_magic_function",
    "register_magics", "run_cell_magic", "run_line_magic", "set_custom_exc", "set_next_input",
    "system",
})  # fmt: skip
_INJECTORS = frozenset({"exec", "execfile", "globals", "locals"})


class Plainer(ast.NodeTransformer):
    """Replaces calls of magics by the Python that they run; notes what may define any name.

    ``opaque`` is set by a magic that is not known, by ``exec`` and its like.
    """

    def __init__(self) -> None:
        self.opaque = False

    def made(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Return the statements without calls of magics that run Python."""
        found: list[ast.stmt] = []
        for statement in statements:
            inner = self._statements(statement)
            found.extend([self.visit(statement)] if inner is None else inner)
        return found

    def _statements(self, statement: ast.stmt) -> list[ast.stmt] | None:
        """Return what `%time x = f()` runs, or ``None`` for what is no such magic."""
        if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
            return None
        called = _magic(statement.value)
        if called is None or called[0] not in _PYTHON_MAGICS:
            return None
        text = _python(called[1])
        return [] if text is None else self.made(_moved(ast.parse(text), statement).body)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace a magic that runs Python by its expression."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in _INJECTORS:
            self.opaque = True
        called = _magic(node)
        if called is None:
            return node
        name, text = called
        if name in _PYTHON_MAGICS or name in TIMERS:
            body = _moved(ast.parse(_python(text) or "None"), node).body
            last = body[-1] if body else None
            value = last.value if isinstance(last, ast.Expr | ast.Assign) else None
            return node if value is None else self.visit(value)
        if name not in HARMLESS_MAGICS and name not in HARMLESS_CELL_MAGICS:
            self.opaque = True
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Note what reaches into the shell, and so into the notebook's names."""
        self.generic_visit(node)
        if _is_shell(node.value) and node.attr not in _HARMLESS_ATTRIBUTES:
            self.opaque = True
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Leave out an annotation that is a text: it need not be Python."""
        self.generic_visit(node)
        node.annotation = _unquoted(node.annotation)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave out an annotation that is a text."""
        self.generic_visit(node)
        node.annotation = _unquoted(node.annotation) or ast.copy_location(
            ast.Constant(value=None), node.annotation
        )
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave out an annotation that is a text."""
        self.generic_visit(node)
        node.returns = _unquoted(node.returns)
        return node


def _is_shell(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "get_ipython"
    )


def _magic(node: ast.Call) -> tuple[str, str] | None:
    """Return the name and the text of a magic that this call runs, if it runs one."""
    function = node.func
    if not isinstance(function, ast.Attribute) or not _is_shell(function.value):
        return None
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if function.attr in ("run_line_magic", "run_cell_magic") and texts:
        return texts[0], texts[1] if len(texts) > 1 else ""
    if function.attr == "magic" and texts:
        name, _, text = texts[0].lstrip("% ").partition(" ")
        return name, text
    return None


def _python(text: str) -> str | None:
    """Return a magic's text without the options before the Python, or ``None`` without Python."""
    text = text.strip()
    for _ in range(9):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            text = text.partition(" ")[2].lstrip()
        else:
            return text
    return None


def _moved(tree: ast.Module, place: ast.stmt | ast.expr) -> ast.Module:
    ast.increment_lineno(tree, place.lineno - 1)
    return tree


def _unquoted(annotation: ast.expr | None) -> ast.expr | None:
    if annotation is None:
        return None
    quoted = any(
        isinstance(node, ast.Constant) and isinstance(node.value, str)
        for node in ast.walk(annotation)
    )
    return None if quoted else annotation
