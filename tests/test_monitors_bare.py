"""The questions about bare files and frames, without a deployment or a project."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from nbmlops import monitors
from nbmlops.errors import WrongUse
from nbmlops.monitors import files
from nbmlops.records import Budget, MonitorReport, dump, load, plain, utc_now
from nbmlops.sheets import InvalidFile

BUDGET = Budget(false_alarms=1, windows=100)


def people(seed, rows=2000, *, older=0.0):
    rng = np.random.default_rng(seed)
    member = rng.random(rows) < 0.4
    return pd.DataFrame(
        {
            "age": rng.normal(40 + older, 9, rows),
            "visits": rng.poisson(5, rows),
            "city": rng.choice(["Bern", "Rome", "Oslo"], rows, p=[0.5, 0.3, 0.2]),
            "member": member,
            "since": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(rng.integers(0, 500_000, rows), unit="s"),
            "income": np.exp(rng.normal(8, 1, rows)),
            "left": np.where(rng.random(rows) < 0.5, "yes", "no"),
            "told": np.where(rng.random(rows) < 0.5, "yes", "no"),
        }
    )


def verdicts(report):
    return {column.name: column.verdict for column in report.columns}


def asked(report):
    answers = plain(report.questions).items()
    return [name for name, answer in answers if not answer["reason"].startswith("not-asked")]


def test_frames_that_are_alike_and_one_that_is_not():
    same = monitors.compare_frames(people(1), people(2))
    assert same.verdict == "ok"
    assert asked(same) == ["features"]
    moved = monitors.compare_frames(people(1, older=9), people(2))
    assert moved.verdict == "alert"
    assert [name for name, verdict in verdicts(moved).items() if verdict == "drift"] == ["age"]


@pytest.mark.parametrize("kind", ["label", "value"])
def test_metrics_are_held_against_those_of_the_reference(kind):
    def told(seed, wrong):
        frame = people(seed, 3000)
        rng = np.random.default_rng(seed)
        if kind == "label":
            frame["told"] = np.where(
                rng.random(3000) < wrong,
                np.where(frame["left"] == "yes", "no", "yes"),
                frame["left"],
            )
        else:
            frame["left"] = rng.normal(size=3000)
            frame["told"] = frame["left"] + rng.normal(size=3000) * wrong
        return frame

    then, named = told(2, 0.1), {"target": "left", "prediction": "told"}
    same = monitors.compare_frames(told(1, 0.1), then, **named)
    assert same.questions.performance.answer != "no"
    worse = monitors.compare_frames(told(1, 0.2), then, **named)
    assert worse.questions.performance.answer == "no"
    assert worse.verdict == "alert"
    metric = worse.metrics[0]
    assert metric.name == ("accuracy" if kind == "label" else "mean_absolute_error")
    assert (metric.worse, metric.estimated, metric.rows) == (True, False, 3000)
    bare = monitors.compare_frames(told(1, 0.2), then.drop(columns="told"), **named)
    assert bare.questions.performance.answer == "unknown"
    assert "no `told`" in bare.questions.performance.reason


def scored(seed, *, wrong=0.0, spelled=("no", "yes"), rows=3000):
    """Return rows with a truth of two classes, and the probability of the second."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    share = 1 / (1 + np.exp(-2 * x))
    truth = rng.random(rows) < np.where(rng.random(rows) < wrong, 1 - share, share)
    told = [spelled[int(one)] for one in truth]
    return pd.DataFrame({"x": x, "left": told, "share": share.round(3)})


CHURNED = {"target": "left", "prediction": "share"}


@pytest.mark.parametrize("spelled", [("no", "yes"), (0, 1), (False, True), (2, 10), (-1.0, 1.0)])
def test_probabilities_are_held_against_labels_as_what_they_are(spelled):
    then = scored(2, spelled=spelled)
    same = monitors.compare_frames(scored(1, spelled=spelled), then, **CHURNED)
    assert same.verdict == "ok"
    assert [same.questions.predictions.answer, same.questions.bounds.answer] == ["yes", "yes"]
    area = next(one for one in same.metrics if one.name == "roc_auc")
    frame = scored(1, spelled=spelled)
    truth = [one == spelled[1] for one in frame["left"]]
    assert area.value == pytest.approx(roc_auc_score(truth, frame["share"]), abs=1e-3)
    worse = monitors.compare_frames(scored(1, spelled=spelled, wrong=0.3), then, **CHURNED)
    assert worse.questions.performance.answer == "no"


def test_without_truths_metrics_are_estimated_from_probabilities(tmp_path):
    then, now = scored(2, rows=6000), scored(1, rows=6000).drop(columns="left")
    same = monitors.compare_frames(now, then, **CHURNED)
    assert (same.verdict, same.questions.performance.answer) == ("ok", "unknown")
    assert all(one.estimated for one in same.metrics)
    real = monitors.compare_frames(scored(1, rows=6000), then, **CHURNED)
    for one, true in zip(same.metrics, real.metrics, strict=True):
        assert one.value == pytest.approx(true.value, abs=0.02)
    harder = now[now["x"].abs() < 0.5]
    assert monitors.compare_frames(harder, then, **CHURNED).questions.performance.answer == "no"
    for name, frame in [("then", then), ("now", now)]:
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    options = CHURNED | {"budget": BUDGET, "created_at": utc_now()}
    told = files.compare(tmp_path / "now.csv", tmp_path / "then.csv", **options)
    assert [one.value for one in told.metrics] == [one.value for one in same.metrics]


@pytest.mark.parametrize("truth", ["no", 3.5])
def test_without_truths_nor_probabilities_there_are_no_actuals(truth):
    then = people(2).assign(told=truth, left=truth)
    found = monitors.compare_frames(
        then.drop(columns="left"), then, target="left", prediction="told"
    )
    assert found.questions.performance.reason.startswith("no-actuals")
    assert found.questions.predictions.answer == "yes"


def test_a_probability_that_is_none_is_out_of_bounds():
    now = scored(1)
    now.loc[:19, "share"] = 1.5
    now.loc[20:29, "share"] = np.nan
    for then in (scored(2), scored(2).drop(columns="share")):
        found = monitors.compare_frames(now, then, **CHURNED)
        assert found.questions.bounds.evidence["out_of_bounds"] == 30


def test_a_value_of_which_the_truth_has_few_is_no_label():
    def rated(seed, off=0.0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=2000)
        stars = np.clip(np.round(5.5 + x + rng.normal(size=2000) / 2), 1, 10).astype(int)
        return pd.DataFrame({"x": x, "stars": stars, "told": 5.5 + 0.9 * x + off})

    named = {"target": "stars", "prediction": "told"}
    same = monitors.compare_frames(rated(1), rated(2), **named)
    assert same.verdict == "ok"
    assert same.metrics[0].name == "mean_absolute_error"
    moved = monitors.compare_frames(rated(1, 1.0), rated(2), **named)
    assert [moved.questions.predictions.answer, moved.questions.performance.answer] == ["no", "no"]


def test_metrics_of_repeated_rows_are_those_of_few():
    then = scored(2)
    few = scored(1, rows=60)
    few.loc[:9, "share"] = 1 - few.loc[:9, "share"]
    bad = pd.concat([few] * 50, ignore_index=True)
    assert monitors.compare_frames(few, then, **CHURNED).questions.performance.answer != "no"
    assert monitors.compare_frames(bad, then, **CHURNED).questions.performance.answer != "no"


def test_a_feature_may_be_called_as_the_output_is():
    def named(seed, **options):
        return people(seed, **options)[["age", "left", "told"]].rename(
            columns={"age": "prediction"}
        )

    both = {"target": "left", "prediction": "told"}
    found = monitors.compare_frames(named(1, older=9), named(2), **both)
    assert verdicts(found) == {"prediction": "drift"}
    assert found.questions.predictions.answer == "yes"
    assert [one.column for one in found.explanation.suspects] == ["prediction"]
    late = pd.concat([named(1), named(3, older=9)[:500]], ignore_index=True)
    found = monitors.compare_frames(late, named(2), **both)
    assert verdicts(found) == {"prediction": "drift"}
    assert found.prediction.verdict == "ok"


def test_numbers_of_rows_are_clocks_in_whatever_order_they_stand():
    rng = np.random.default_rng(1)
    then = {"row": rng.permutation(6000)[:2000], "x": rng.normal(size=2000)}
    now = {"row": 6000 + rng.permutation(3000), "x": rng.normal(size=3000)}
    found = monitors.compare_frames(now, then)
    assert found.verdict == "ok"
    assert verdicts(found) == {"row": "unknown", "x": "ok"}


def test_what_happened_to_a_column_is_told_of_frames_too():
    now = people(1)
    now["income"] *= 1000
    now.loc[now.index % 3 == 0, "age"] = np.nan
    told = monitors.compare_frames(now, people(2)).explanation
    assert {one.column: one.change for one in told.suspects} == {"income": "unit", "age": "missing"}
    assert told.suspects[0].factor == pytest.approx(1000, rel=0.5)
    assert sum(one.share for one in told.suspects) == pytest.approx(1)
    small = people(1)
    small["income"] /= 1000
    (one,) = monitors.compare_frames(small, people(2)).explanation.suspects
    assert one.change == "unit"
    assert one.factor == pytest.approx(0.001, rel=0.5)


def test_predictions_are_held_against_the_truths_of_training():
    told = monitors.compare_frames(people(1), people(2), target="left", prediction="told")
    assert asked(told) == ["features", "predictions", "bounds", "performance"]
    assert told.questions.predictions.answer == "yes"
    assert set(verdicts(told)) == {"age", "visits", "city", "member", "since", "income"}
    wrong = people(1)
    wrong["told"] = "yes"
    found = monitors.compare_frames(wrong, people(2), target="left", prediction="told")
    assert found.questions.predictions.answer == "no"
    wrong["told"] = np.where(np.arange(2000) % 100 == 0, "perhaps", wrong["told"])
    found = monitors.compare_frames(wrong, people(2), target="left", prediction="told")
    assert found.questions.bounds.evidence["out_of_bounds"] == 20


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_of_any_format_gives_the_same_verdicts(tmp_path, suffix):
    for name, whole in (("now", people(1, older=9)), ("then", people(2))):
        frame = whole if suffix == "csv" else whole.drop(columns="since")
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
    report = monitors.compare(
        tmp_path / f"now.{suffix}",
        tmp_path / f"then.{suffix}",
        target="left",
        prediction="told",
        budget=BUDGET,
        created_at=utc_now(),
    )
    found = verdicts(report)
    assert found.pop("since", "ok") == "ok"
    assert found == {
        "age": "drift",
        "visits": "ok",
        "city": "ok",
        "member": "ok",
        "income": "ok",
    }
    kinds = {column.name: column.kind for column in report.columns}
    assert (kinds["visits"], kinds["member"], kinds["city"]) == ("integer", "boolean", "category")


@pytest.mark.parametrize("group", [5000, 700])
def test_parts_of_a_parquet_file_have_nothing_to_do_with_its_row_groups(tmp_path, group):
    path = tmp_path / "one.parquet"
    frame = people(1, 5000)
    frame.to_parquet(path, row_group_size=group)
    rows = files.opened(path)
    assert len(rows.sizes()) == 16
    for name in ("age", "city"):
        parts = list(rows.parts(name))
        assert [len(part) for part in parts] == rows.sizes()
        assert [item for part in parts for item in part.to_pylist()] == frame[name].tolist()
    assert list(rows.parts("no such column")) == [None] * 16


def test_clocks_are_no_drift(tmp_path):
    later = people(1)
    later["since"] += pd.Timedelta(days=90)
    column = next(
        column
        for column in monitors.compare_frames(later, people(2)).columns
        if column.name == "since"
    )
    assert (column.verdict, column.kind) == ("unknown", "datetime")
    assert "clocks" in column.reason


def test_what_lacks_a_column_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(WrongUse, match="no column `age`"):
        monitors.compare_frames(people(1).rename(columns={"age": "aeg"}), people(2))
    with pytest.raises(WrongUse, match="no column `tolld`"):
        monitors.compare_frames(people(1), people(2), prediction="tolld")
    with pytest.raises(WrongUse, match="has no columns"):
        monitors.compare_frames([1, 2], people(2))
    people(1).drop(columns="age").to_csv(tmp_path / "now.csv", index=False)
    people(2).to_csv(tmp_path / "then.csv", index=False)
    with pytest.raises(InvalidFile, match="`age`"):
        monitors.compare(
            tmp_path / "now.csv", tmp_path / "then.csv", budget=BUDGET, created_at=utc_now()
        )


# --- the command --------------------------------------------------------------------------------


def typed(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "nbmlops", "monitor", *words],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bare")
    people(1).to_csv(made / "same.csv", index=False)
    people(1, older=9).to_parquet(made / "moved.parquet")
    people(3, 20).to_csv(made / "few.csv", index=False)
    people(2).to_parquet(made / "train.parquet")
    return made


@pytest.mark.parametrize(
    ("file", "code", "answer"),
    [("same.csv", 0, "yes"), ("moved.parquet", 3, "no"), ("few.csv", 4, "unknown")],
)
def test_the_command_needs_no_project_and_its_exit_code_tells(folder, file, code, answer):
    found, out, _ = typed(folder, "--from", file, "--reference", "train.parquet", "--json")
    document = json.loads(out)
    assert (found, document["questions"]["features"]["answer"]) == (code, answer)
    for name in ("predictions", "bounds", "performance"):
        assert document["questions"][name]["reason"].startswith("not-asked")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "an endpoint, or two files"),
        (("--from", "same.csv"), "an endpoint, or two files"),
        (("cancer", "--from", "same.csv", "--reference", "train.parquet"), "two things"),
        (("--from", "none.csv", "--reference", "train.parquet"), "no file"),
        (("--from", "same.csv", "--reference", "train.parquet", "--window", "1h"), "as a whole"),
        (("--from", "same.csv", "--reference", "train.parquet", "--every", "0s"), "length"),
    ],
)
def test_wrong_words_are_refused_in_two_lines(folder, words, told):
    code, out, said = typed(folder, *words)
    assert (code, out) == (2, "")
    assert told in said
    assert len(said.strip().splitlines()) == 2


def test_it_looks_again_and_again_until_it_is_interrupted(folder):
    words = ["--from", "moved.parquet", "--reference", "train.parquet", "--every", "1s", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nbmlops", "monitor", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Whoever runs the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert [line["verdict"] for line in lines] == ["alert", "alert"]
    assert process.returncode == 3
    assert all(json.loads(line)["verdict"] == "alert" for line in rest.splitlines())


# --- anything at all ----------------------------------------------------------------------------

OBJECTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=3),
    st.datetimes(),
    st.dates(),
    st.decimals(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([pd.NA, pd.NaT, np.float32(1), np.int8(1), math.inf, -1e308, 10**400]),
)
ARRAYS = st.sampled_from(
    ["float64", "float32", "int64", "uint8", "bool", "datetime64[s]", "U3", "int8"]
)


@st.composite
def columns(draw, rows):
    form = draw(st.integers(0, 4))
    if form == 0:
        return draw(st.lists(OBJECTS, min_size=rows, max_size=rows))
    if form == 1:
        return [draw(OBJECTS)] * rows
    array = draw(arrays.arrays(draw(ARRAYS), rows))
    if form == 2:
        return array
    if array.dtype.kind == "U":  # pandas has no lone surrogates
        array = np.array([text.encode("utf-8", "replace").decode() for text in array.tolist()])
    series = pd.Series(array)
    return series.astype("category") if form == 3 else series.where(series.index % 3 != 0)


@st.composite
def frames(draw):
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True))
    then, now = (draw(st.sampled_from([0, 1, 5, 40, 600])) for _ in range(2))
    return tuple({name: draw(columns(rows)) for name in names} for rows in (now, then))


def numbers_in(document):
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list | tuple):
        for item in document:
            yield from numbers_in(item)
    elif isinstance(document, float):
        yield document


@settings(
    max_examples=int(os.environ.get("NBMLOPS_TEST_FRAMES", "150")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(both=frames(), named=st.booleans())
def test_any_frame_gets_verdicts_and_never_a_nan(both, named):
    now, then = both
    chosen = {"target": next(iter(then)), "prediction": next(iter(then))} if named else {}
    report = monitors.compare_frames(now, then, **chosen)
    assert {column.verdict for column in report.columns} <= {"ok", "drift", "unknown"}
    assert all(column.reason for column in report.columns)
    assert all(math.isfinite(number) for number in numbers_in(plain(report)))
    assert load(dump(report), MonitorReport) == report
