"""A model is kept as the same bytes, whenever and wherever it is kept."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder
from sklearn.svm import SVC

import serving
from nbmlops import formats, models, records, schema
from nbmlops.records import ArtifactRecord, Environment, LoggedModel, RunResult, Status
from registered import run_record

KINDS = ["logistic", "forest", "regressor", "array", "mixed", "gaps"]
DIGESTS = """
import hashlib, sys
import serving
for kind in sys.argv[1:]:
    print(kind, hashlib.sha256(serving.model(kind)[0]).hexdigest())
"""


@pytest.mark.slow
def test_the_same_training_in_two_processes_gives_the_same_bytes(tmp_path):
    path = os.pathsep.join([str(serving.SOURCE), str(serving.SOURCE.parent / "tests")])
    found = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS, *KINDS],
            # In the second process all modules are compiled anew.
            env=os.environ
            | {"PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}
            | ({"PYTHONPYCACHEPREFIX": str(tmp_path)} if seed else {}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1)
    ]
    assert found[0].split()[::2] == KINDS
    assert found[0] == found[1]


ESTIMATORS = [
    RandomForestClassifier(5, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3),
    KNeighborsClassifier(3),
    SVC(random_state=0),
    make_pipeline(KBinsDiscretizer(3), BernoulliNB()),
    make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=200)),
    make_column_transformer((OneHotEncoder(), [0])),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_a_model_kept_twice_is_the_same_bytes_and_answers_as_it_did(estimator, tmp_path):
    random = np.random.default_rng(0)
    table = random.integers(0, 5, (60, 4)).astype("float64")
    model = estimator.fit(table, table.sum(axis=1) > 9)
    content = formats.to_bytes(model)
    assert formats.to_bytes(model) == content
    (tmp_path / "model.skops").write_bytes(content)
    loaded = formats.load(tmp_path / "model.skops")
    # What is loaded and kept again is still the same model.
    assert formats.to_bytes(loaded) == formats.canonical(content) == content
    method = "predict" if hasattr(model, "predict") else "transform"
    got, meant = getattr(loaded, method)(table), getattr(model, method)(table)
    assert (got == meant).all() if method == "predict" else (got != meant).nnz == 0


def test_an_archive_names_neither_addresses_nor_times():
    random = np.random.default_rng(0)
    model = RandomForestClassifier(3, random_state=0).fit(random.normal(size=(20, 2)), [0, 1] * 10)
    with zipfile.ZipFile(io.BytesIO(formats.to_bytes(model))) as archive:
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == sorted(archive.namelist())
        arrays = {name for name in archive.namelist() if name.endswith(".npy")}
        assert arrays == {f"{number + 1}.npy" for number in range(len(arrays))}
        numbers = [int(word) for word in _ids(json.loads(archive.read("schema.json")))]
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))


def _ids(node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if key == "__id__" else _ids(value)
    elif isinstance(node, list):
        for one in node:
            yield from _ids(one)


def test_a_set_has_no_order_and_words_may_be_called_as_the_archive_s_own_keys(tmp_path):
    words = ["file __id__ content", "content of the file", "an __id__ of __loader__"]
    kept = set()
    for order in (["of", "the", "an"], ["an", "of", "the"], ["the", "an", "of"]):
        model = TfidfVectorizer(token_pattern=r"\S+").fit(words)
        model.stop_words_ = set()
        for word in order:
            model.stop_words_.add(word)
        content = formats.to_bytes(model)
        kept.add(content)
    assert len(kept) == 1
    (tmp_path / "model.skops").write_bytes(content)
    loaded = formats.load(tmp_path / "model.skops")
    assert loaded.vocabulary_ == model.vocabulary_
    assert "file" in loaded.vocabulary_
    assert loaded.stop_words_ == {"of", "the", "an"}
    assert (loaded.transform(words) != model.transform(words)).nnz == 0


def test_one_array_stays_one_and_two_stay_two(tmp_path):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.first_ = model.second_ = np.arange(3.0)
    model.third_ = np.arange(3.0)
    (tmp_path / "model.skops").write_bytes(formats.to_bytes(model))
    loaded = formats.load(tmp_path / "model.skops")
    assert loaded.first_ is loaded.second_
    assert loaded.first_ is not loaded.third_


def test_padding_between_the_fields_of_an_array_has_no_say():
    dtype = np.dtype({"names": ["a", "b"], "formats": ["<f8", "u1"], "itemsize": 16})
    kept = set()
    for noise in (0, 1):
        array = np.frombuffer(bytes([noise] * 32), dtype=dtype).copy()
        array["a"], array["b"] = [1.5, 2.5], [3, 4]
        buffer = io.BytesIO()
        np.save(buffer, array)
        kept.add(formats._settled("1.npy", buffer.getvalue()))
    assert len(kept) == 1
    assert np.load(io.BytesIO(kept.pop()))["b"].tolist() == [3, 4]


def test_a_model_that_is_logged_twice_has_one_version(workspace):
    environment = records.dump(
        Environment(
            environment_id="e-1",
            python="python",
            python_version="3.11",
            platform="linux",
            source=None,
            packages={},
        )
    )
    commit = workspace.repo.text("rev-parse", "HEAD")
    names = []
    for number in (1, 2):
        random = np.random.default_rng(0)
        table = random.normal(size=(40, 3))
        model = RandomForestClassifier(5, random_state=0).fit(table, table[:, 0] > 0)
        contract = schema.infer(table, table[:, 0] > 0, classes=model.classes_, probabilities=True)
        contents = {
            "model": formats.to_bytes(model),
            "schema": records.dump(contract),
            "environment": environment,
        }
        artifacts = tuple(
            ArtifactRecord(
                name=role,
                digest=workspace.artifacts.put(content),
                bytes=len(content),
                kind="environment" if role == "environment" else "model",
            )
            for role, content in contents.items()
        )
        run = run_record(workspace, f"train-{number}", commit, artifacts, workspace.now())
        logged = LoggedModel(
            name="iris",
            format=formats.SKOPS,
            files={"model": "model", "schema": "schema"},
            metrics={},
            step="train",
            notebook="train.ipynb",
            notebook_blob="b" * 40,
            cell_id=None,
            cell=None,
        )
        result = RunResult(
            run_id=run.run_id,
            attempt="1",
            status=Status.SUCCEEDED,
            started_at=workspace.now(),
            finished_at=workspace.now(),
            steps=(),
            models=(logged,),
        )
        names += models.register(workspace, run, result, "d" * 64)
    assert names == ["iris:1", "iris:1"]
