"""Whether a person's front end has asked for a cell, by what it says of it."""

from types import SimpleNamespace

import pytest

from nbmlops.widgets import front_end

CELL = {"header": {}, "metadata": {"cellId": "f2b1", "recordTiming": False}}


def kernel(parent):
    return SimpleNamespace(get_parent=lambda: parent)


@pytest.mark.parametrize(
    ("made", "is_kernel", "shows"),
    [
        (None, False, False),
        (kernel(CELL), True, True),
        (kernel({"header": {}, "metadata": {}}), True, False),
        (kernel({}), True, False),
        (kernel(None), True, False),
        (SimpleNamespace(), True, True),
    ],
    ids=["no kernel", "a cell", "papermill", "nothing asked", "nobody", "does not tell"],
)
def test_who_says_which_cell_it_is_shows_widgets(monkeypatch, made, is_kernel, shows):
    monkeypatch.setattr(front_end, "_kernel", lambda: made)
    assert front_end.is_kernel() is is_kernel
    assert front_end.shows_widgets() is shows
