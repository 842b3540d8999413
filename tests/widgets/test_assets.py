from __future__ import annotations

import re

import pytest

from nbmlops.widgets.assets import module


@pytest.mark.parametrize("name", ["drift", "run", "sweep"])
def test_a_browser_gets_one_module_that_imports_nothing_and_has_each_part_once(name):
    source = module(name)
    assert not re.search(r"^import\b", source, re.MULTILINE)
    assert re.findall(r"^export\b.*", source, re.MULTILINE) == ["export default { render };"]
    assert source.count("const shared$ = ") == 1


def test_a_part_stands_after_those_that_it_imports():
    source = module("drift")
    order = [source.index(f"const {name}$ = ") for name in ("shared", "distributions", "timeline")]
    assert order == sorted(order)
