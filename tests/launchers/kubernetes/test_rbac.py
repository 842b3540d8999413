"""The least role is what the documentation says, and reads no secret."""

import re
from pathlib import Path

from nbmlops.launchers.kubernetes import rbac, troubles

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()


def test_the_role_is_the_documented_one():
    rows = re.findall(r"(?m)^\| (`[\w.]+`|core) \| ([\w/, ]+) \| ([a-z, ]+) \|$", PAGE)
    told = {
        ("" if group == "core" else group.strip("`"), name): set(verbs.split(", "))
        for group, resources, verbs in rows
        for name in resources.split(", ")
    }
    given = {
        (group, name): set(rule["verbs"])
        for rule in rbac.role("ns")["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }
    assert told == given


def test_the_role_reads_no_secret_and_names_everything():
    for rule in rbac.role("ns")["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if "secrets" in rule["resources"]:
            assert not {"get", "list", "watch"} & {*rule["verbs"]}
        assert not {"pods/exec", "pods/attach", "pods/ephemeralcontainers"} & {*rule["resources"]}


def test_each_trouble_is_documented():
    told = set(re.findall(r"`([a-z-]+)`", PAGE.split("## What goes wrong")[1]))
    assert {*troubles._HINTS} <= told
