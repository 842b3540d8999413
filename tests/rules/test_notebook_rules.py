"""Each rule of notebooks finds what breaks it, and nothing in a notebook that keeps it."""

import json
import random
import string
from datetime import UTC, datetime, timedelta

import pytest

from nbmlops.rules import TABLE, Session, secrets_in, subjects, unsaved
from sources import notebook_text

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
RULES = {rule.code: rule for rule in TABLE}


def look(code, data, **known):
    if isinstance(data, str):
        data = data.encode()
    known.setdefault("leaks", tuple(secrets_in(data, "n.ipynb")))
    return list(RULES[code].in_notebook(subjects.read(data, "n.ipynb", **known)))


def places(code, *cells, **known):
    return [(f.cell, f.line) for f in look(code, notebook_text(*cells), **known)]


def changed(text, **changes):
    document = json.loads(text)
    document.update(changes)
    return json.dumps(document)


def random_text(length, alphabet=string.ascii_letters + string.digits, seed=5):
    return "".join(random.Random(seed).choices(alphabet, k=length))


# --- form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"<<<<<<< HEAD",
        b"[" * 100_000,
        b'{"nbformat": true}',
        b'{"nbformat": 4}',
        b'{"nbformat": 4, "cells": [1]}',
        b'{"nbformat": 4, "cells": [{"source": 1}]}',
        b'{"nbformat": 4, "cells": [{"metadata": []}, {"metadata": 3}]}',
        b'{"nbformat": 4, "cells": [{"metadata": {"tags": 5}}]}',
        b'{"nbformat": 4, "cells": [{"id": 5}]}',
        b'{"nbformat": 4, "cells": [{"outputs": 5}]}',
        b'{"nbformat": 4, "cells": [], "metadata": 5}',
        b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": "x"}}',
    ],
)
def test_what_is_no_notebook_is_named_by_one_rule_and_stops_none(data):
    assert [f.message for f in look("notebook-unreadable", data)]
    for rule in TABLE:
        if rule.in_notebook and rule.code != "notebook-unreadable":
            assert look(rule.code, data) == []


def test_a_notebook_that_keeps_the_rules_has_no_fault():
    text = notebook_text(
        ("parameters", "depth = 3"), "import math\nshare = math.log(depth)", "print(share)"
    )
    for rule in TABLE:
        if rule.in_notebook:
            assert look(rule.code, text, is_step=True) == [], rule.code


def test_an_old_format_is_found():
    text = json.dumps({"nbformat": 3, "worksheets": [], "metadata": {}})
    assert "format 3" in look("old-format", text)[0].message
    assert look("old-format", notebook_text("1")) == []


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"language_info": {"name": "R"}}, "written in r"),
        ({"kernelspec": {"name": "ir", "language": "R"}}, "written in r"),
        ({"language_info": {"name": "python", "version": "2.7.18"}}, "Python 2"),
    ],
)
def test_a_step_in_another_language_is_found_and_its_code_left_alone(metadata, told):
    text = changed(notebook_text('print "x" + y'), metadata=metadata)
    assert told in look("other-language", text, is_step=True)[0].message
    assert look("other-language", text) == []
    assert look("syntax-error", text) == look("hidden-state", text) == []


def test_a_notebook_without_a_kernel_is_found():
    assert look("no-kernel", changed(notebook_text("1"), metadata={}))
    assert look("no-kernel", notebook_text("1")) == []


def test_cells_that_share_an_id_are_found_but_for_the_first():
    document = json.loads(notebook_text("1", "2", "3"))
    document["cells"][2]["id"] = document["cells"][0]["id"]
    assert [f.cell for f in look("duplicate-cell-ids", json.dumps(document))] == [3]
    for cell in document["cells"]:
        del cell["id"]
    assert look("duplicate-cell-ids", json.dumps(document)) == []


def test_only_a_step_needs_parameters():
    assert len(places("parameters-missing", "a = 1", is_step=True)) == 1
    assert places("parameters-missing", "a = 1") == []


def test_a_second_parameters_cell_is_found():
    assert places("parameters-doubled", ("parameters", "a = 1"), "b", ("parameters", "")) == [
        (3, None)
    ]
    assert places("parameters-doubled", ("parameters", "a = 1")) == []


def test_outputs_are_found_once_for_a_notebook():
    assert [f.cell for f in look("outputs", notebook_text("1", "2", outputs=True))] == [1]
    assert look("outputs", notebook_text("1", "2")) == []


def test_cells_executed_out_of_order_are_found_at_the_first():
    document = json.loads(notebook_text("1", "2", "3", "4"))
    for cell, count in zip(document["cells"], (1, 7, None, 3), strict=True):
        cell["execution_count"] = count
    assert [f.cell for f in look("out-of-order", json.dumps(document))] == [4]
    document["cells"][3]["execution_count"] = 8
    assert look("out-of-order", json.dumps(document)) == []


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("a = 1\nb = = 2", 2),
        ("\n\nreturn 5", 3),
        ("%time x = f(\n1 + )", None),
        ('print "hello"', 1),
        ("%%time\na = 1\nb = = 2", None),
        ("break", 1),
        ("a\0b", None),
    ],
)
def test_code_that_is_not_python_is_found(source, line):
    found = look("syntax-error", notebook_text("1", source))
    assert [f.cell for f in found] == [2]
    assert line in (None, found[0].line)


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\n!ls *.csv | head\nfiles = !ls\nx = %time 5\nopen?",
        "await fetch()\nasync for a in b():\n    pass",
        "%%bash\nfor i in 1 2; do echo $i; done",
        "%%html\n<b>x</b>",
        "%%some_extension --flag\nnot python at all",
        "pip install pandas",
        "ls",
        'pattern = "\\d+"',
        "",
        "# only a comment",
        "for i in range(3):\n    !echo {i}",
    ],
)
def test_what_a_notebook_may_hold_is_valid(source):
    assert places("syntax-error", source) == []


def test_a_cell_that_is_meant_to_fail_is_left_alone():
    assert places("syntax-error", ("raises-exception", "a = =")) == []
    assert places("hidden-state", ("raises-exception", "nope")) == []


def test_star_imports_are_found_with_their_line():
    assert places("star-import", "import os\nfrom numpy import *", "%%time\nfrom os import *") == [
        (1, 2),
        (2, 2),
    ]
    assert places("star-import", "from numpy import array\n'from x import *'") == []


@pytest.mark.parametrize(
    "text",
    ["/home/ada/x.csv", "/Users/ada/x", "C:\\data\\x.csv", "D:/data/x.csv", "/content/drive/x"],
)
def test_paths_of_one_machine_are_found(text):
    assert places("absolute-path", f"a = 1\nopen({text!r})") == [(1, 2)]
    assert places("absolute-path", f"open(f{text + '/{a}'!r})") == [(1, 1)]


def test_a_path_that_is_there_on_this_machine_is_found(monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: path == "/srv/data/table.csv")
    assert places("absolute-path", "a = '/srv/data/table.csv'\nb = '/srv/data/other.csv'") == [
        (1, 1)
    ]


@pytest.mark.parametrize(
    "text",
    ["/", "/predict", "/v2/models", "../data/x.csv", "data/x", "https://a.org/home/x", "/tmp/x",
     "/usr/bin/env", "s3://home/x", "//home/x", "a:b", "/dev/null"],
)  # fmt: skip
def test_other_texts_are_no_paths_of_one_machine(text):
    assert places("absolute-path", f"open({text!r})") == []


@pytest.mark.parametrize(
    ("later", "line"),
    [
        ("depth = 8", 1),
        ("x = 1\nfor depth in range(3):\n    pass", 2),
        ("if True:\n    depth = 8", 2),
        ("a, (depth, b) = 1, (2, 3)", 1),
        ("%time depth = 9", 1),
        ("depth: int = 9", 1),
        ("try:\n    depth = 1\nexcept ValueError:\n    pass", 2),
    ],
)
def test_a_later_cell_that_discards_a_parameter_is_found(later, line):
    assert places("parameters-overwritten", ("parameters", "depth = 3"), later) == [(2, line)]


@pytest.mark.parametrize(
    "later",
    [
        "depth = int(depth)",
        "depth += 1",
        "if depth is None:\n    depth = 8",
        "def f():\n    depth = 8",
        "class A:\n    depth = 8",
        "[depth for depth in range(3)]",
        "other = depth",
        "a.depth = 5",
        "f(depth=5)",
        "depth: int",
    ],
)
def test_what_keeps_a_parameter_is_left_alone(later):
    assert places("parameters-overwritten", ("parameters", "depth = 3"), later) == []


def test_what_an_earlier_run_was_given_is_no_later_assignment():
    given = ("injected-parameters", "depth = 8")
    assert places("parameters-overwritten", ("parameters", "depth = 3"), given) == []


def test_assignments_above_the_parameters_do_not_count():
    assert places("parameters-overwritten", "depth = 1", ("parameters", "depth = 3")) == []


@pytest.mark.parametrize(
    ("cells", "place", "name"),
    [
        (("print(frame)",), (1, 1), "frame"),
        (("a = 1", "x = 2\n\nframe.head()", "frame = 1"), (2, 3), "frame"),
        (("def f():\n    return nope", "f()"), (1, 2), "nope"),
        (("a = 1\ndel a", "a"), (2, 1), "a"),
        (("[i for i in range(3)]", "i"), (2, 1), "i"),
        (("%time y = f(x)", "x = f = 1"), (1, 1), "f"),
        (("%%timeit\nz = 5", "z"), (2, 1), "z"),
        (("class A:\n    b = 1", "b"), (2, 1), "b"),
        (("\n\n%matplotlib inline\nnope",), (1, 4), "nope"),
        (("%%time\na = 1\nnope",), (1, 3), "nope"),
        (("x = %time nope()",), (1, 1), "nope"),
    ],
)
def test_a_name_that_no_cell_above_defines_is_found(cells, place, name):
    found = look("hidden-state", notebook_text(*cells))
    assert (found[0].cell, found[0].line) == place
    assert f"`{name}`" in found[0].message


def test_a_name_that_a_cell_below_defines_says_which():
    found = look("hidden-state", notebook_text("frame", "1", "import x as frame"))
    assert "cell 3 below" in found[0].message
    assert len(look("hidden-state", notebook_text("frame", "frame"))) == 1


@pytest.mark.parametrize(
    "cells",
    [
        ("def f():\n    return late", "late = 1", "f()"),
        ("display(1); get_ipython(); In; Out; _; __; _3; _i4; _mlops; exit",),
        ("%time y = 1", "y"),
        ("%%time\ny = 1", "y"),
        ("%%capture out\ny = 1", "y; out.show()"),
        ("files = !ls", "files"),
        ("x = %time 5", "x"),
        ("%run helpers.py", "whatever"),
        ("%pylab", "plot(1)"),
        ("from pylab import *", "plot(1)"),
        ("%%unknown_magic x\nbla", "x"),
        ("exec('a = 1')", "a"),
        ("globals()['a'] = 1", "a"),
        ("get_ipython().user_ns['a'] = 1", "a"),
        ("a = = 1", "a"),
        ("if (n := 10) > 5:\n    pass", "n"),
        ("def f():\n    global g\n    g = 1", "f()\ng"),
        ("try:\n    unicode\nexcept NameError:\n    unicode = str", "unicode"),
        ("with open('x') as file:\n    pass", "file"),
        ("for i in range(3):\n    pass", "i"),
        ("class A:\n    b = 1\n    c = [b for _ in 'a']", "lambda x: x"),
        ("def f(x: 'Float[Array, \"batch dim\"]') -> 'Later':\n    pass",),
        ("from typing import Any\na: 'b c' = 1", "a"),
        ("import a.b\nimport c as d", "a.b; d"),
        ("match 1:\n    case {'a': x}:\n        pass", "x"),
        ("%timeit -n 10 -r 3 sum([1])",),
        ("async def f():\n    pass", "await f()"),
        ("ls", "pwd", "whos"),
        ("print(__name__)",),
    ],
)
def test_names_that_are_there_are_left_alone(cells):
    assert look("hidden-state", notebook_text(*cells)) == []


def test_code_that_is_nested_deeper_than_can_be_followed_stops_nothing():
    deep = "x = " + "+".join(["1"] * 5000)
    assert look("hidden-state", notebook_text(deep, "x")) == []
    assert look("syntax-error", notebook_text(deep)) == []


# --- secrets and sessions -------------------------------------------------------------------------


def test_secrets_in_sources_and_outputs_are_found_at_their_cell():
    token = "ghp_" + random_text(36)
    document = json.loads(notebook_text("1", f"a = 1\nkey = '{token}'", outputs=True))
    document["cells"][0]["outputs"][0]["text"] = ["x\n", f"token: {token}\n"]
    found = look("secret", json.dumps(document))
    assert [(f.cell, f.line) for f in found] == [(1, None), (2, 2)]
    assert token not in repr(found)
    assert "--fix" in found[0].fix


def test_a_password_in_a_cell_is_found_and_not_told():
    password = random_text(14)
    found = look("password", notebook_text("1", f"connect(password={password!r})"))
    assert [(f.cell, f.line) for f in found] == [(2, 1)]
    assert password not in repr(found)


def test_edits_that_were_executed_and_not_saved_are_found():
    text = notebook_text("a = 1", "b = 2", "c = 3")
    late, early = NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)
    executed = {
        "cell-0": ("a = 1\n", late),  # the same
        "cell-1": ("b = 3", late),  # an edit
        "cell-2": ("c = 4", early),  # saved meanwhile, and changed back
        "cell-9": ("d = 4", late),  # not in the file
        "cell-8": ("%mlops train -p a=2", late),  # means nothing to a job
        "cell-7": ("%%mlops train\n-p a=2", late),
    }
    document = subjects.read(text.encode(), "n.ipynb").notebook
    found = unsaved(document, executed, NOON)
    assert [(edit.cell_id, edit.position) for edit in found] == [("cell-1", 2), ("cell-9", None)]
    assert [f.cell for f in look("unsaved-edits", text, session=Session(executed, NOON))] == [2]
    assert look("unsaved-edits", text) == []


def test_a_file_without_ids_is_compared_by_what_its_cells_hold():
    document = json.loads(notebook_text("a = 1"))
    del document["cells"][0]["id"]
    parsed = subjects.read(json.dumps(document).encode(), "n.ipynb").notebook
    assert unsaved(parsed, {"x": ("a = 1", NOON + timedelta(1))}, NOON) == ()
    assert len(unsaved(parsed, {"x": ("a = 2", NOON + timedelta(1))}, NOON)) == 1
