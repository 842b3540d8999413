"""What is sent to an endpoint is looked at before it leaves."""

import subprocess
import sys

import pytest

from nbmlops.commands import Context, serving
from nbmlops.errors import InvalidRecords, UnknownEndpoint, WrongUse

DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (DEEP, "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("{", "not JSON"),
        ('{"x": NaN}', "not JSON"),
        ('{"x": "\udce9"}', "not UTF-8"),
    ],
)
def test_what_is_no_json_in_utf_8_is_refused_in_a_line_before_anything_is_asked(
    workspace, data, what
):
    for given, stdin in ((data, None), ("-", lambda: data)):
        context = Context(workspace.root, stdin=stdin)
        with pytest.raises(InvalidRecords, match=what) as caught:
            serving.call(context, "none", given)
        assert caught.value.exit_code == 2
        assert "\n" not in caught.value.message
        assert caught.value.hint
        context.close()


def test_without_a_standard_input_there_is_nothing_to_read(workspace):
    context = Context(workspace.root)
    with pytest.raises(WrongUse):
        serving.call(context, "none", "-")
    with pytest.raises(UnknownEndpoint):
        serving.call(context, "none", "{}")
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8:surrogateescape", "ascii"])
def test_bytes_that_are_no_utf_8_end_with_exit_2_whatever_the_terminal_reads(workspace, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "nbmlops", "call", "none", "-"],
        cwd=workspace.root,
        env={"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding, "HOME": str(workspace.root)},
        input=b'{"x": "\xe9"}',
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 2, said
    assert "Traceback" not in said
    if encoding != "latin-1":  # which reads any bytes: the endpoint's name is all that is wrong
        assert "not UTF-8" in said
