"""A project with two versions of a model of mixed columns, the first of them deployed."""

from __future__ import annotations

import json

import pytest

from nbmlops import deployments, endpoints, pipelines, runs, submission
from nbmlops import workspace as workspaces
from sources import git, notebook_text

TRAIN = """
import nbmlops as mlops
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
table = pd.DataFrame({
    "city": ["Bern", "Rome", "Oslo"] * 40,
    "age": range(120),
    "member": [True, False] * 60,
    "income": [1000.5 + 7.25 * (n % 13) for n in range(120)],
})
target = ["yes" if n > 60 else "no" for n in range(120)]
encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
model = make_pipeline(encoder, LogisticRegression(C=strength, max_iter=5000)).fit(table, target)
mlops.log_model(model, name="churn", train=(table, target))
"""


def row(age=30, **changes):
    """Return a record of the model."""
    return {"city": "Rome", "age": age, "member": True, "income": 1010.25, **changes}


def call(opened, *records):
    """Call the endpoint, and return its answer."""
    return json.loads(endpoints.call(opened, "churn", json.dumps(list(records)).encode()))


@pytest.fixture(scope="session")
def churn(tmp_path_factory):
    """The project, opened, with `churn:1` deployed; `churn:2` answers otherwise."""
    top = tmp_path_factory.mktemp("served") / "customers"
    top.mkdir()
    (top / "nbmlops.toml").write_text(
        "[project]\nname = 'customers'\n[pipelines.train]\nsteps = [{notebook = 'train.ipynb'}]\n"
    )
    (top / "train.ipynb").write_text(notebook_text(("parameters", "strength = 1.0"), TRAIN))
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    opened = workspaces.open_at(top)
    for strength in ("1.0", "0.000001"):
        run = submission.submit(opened, pipelines.find(opened, "train"), {"strength": strength})
        for seen in runs.watch(opened, run.run_id):
            run = seen
        assert run.status.value == "succeeded", run.cause
    deployments.deploy(opened, "churn:1")
    yield opened
    deployments.undeploy(opened, "churn")
    opened.close()
