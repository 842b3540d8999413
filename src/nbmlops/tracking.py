"""What a notebook records of its run; runs in the project's environment, inside the kernel.

Inside a job (the runner sets ``NBMLOPS_JOB``) files and events go to a folder that the runner
reads. Outside a job the same calls work, keep nothing, and say how to keep it. Only the standard
library, msgspec and nbmlops' own words and pure statistics are imported, besides what the model
needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from nbmlops import archives, digests, formats, layout, records
from nbmlops.errors import InvalidParameter, ModelRefused, WrongUse
from nbmlops.records import Event, ModelSchema, Probe, Sample, utc_now

if TYPE_CHECKING:
    from nbmlops.monitoring.performance.testsets import PerformanceReference

_HINT = "Outside a run this is not kept; run the notebook as a pipeline: `%mlops train`."


def log_metrics(metrics: Mapping[str, float] | None = None, **more: float) -> None:
    """Record numbers of this run, such as ``log_metrics(accuracy=0.95)``.

    Raises
    ------
    InvalidParameter
        When a value is not a number.
    """
    values: dict[str, float] = {}
    for name, value in {**(metrics or {}), **more}.items():
        try:
            values[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise InvalidParameter(
                f"the metric `{name}` is {value!r}, not a number",
                "Log one number for each name.",
            ) from error
    _emit("metric", values)


def log_artifact(path: str | Path, name: str | None = None) -> None:
    """Keep a file as an artifact of this run, under its own name or the one given.

    Raises
    ------
    WrongUse
        When there is no such file.
    """
    source = Path(path)
    if not source.is_file():
        raise WrongUse(f"there is no file {source}", f"Write it before you log it: {source}.")
    _keep_file(source, name or source.name, kind="file")


def log_figure(figure: Any, name: str = "figure") -> None:
    """Keep a figure as a PNG: anything with ``savefig`` (matplotlib) or ``_repr_png_``.

    Raises
    ------
    WrongUse
        When the object can do neither.
    """
    import io

    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        data = buffer.getvalue()
    elif hasattr(figure, "_repr_png_"):
        data = figure._repr_png_()
    else:
        raise WrongUse(
            f"{type(figure).__name__} is no figure",
            "Pass a matplotlib figure, such as `plt.gcf()`.",
        )
    _keep_bytes(data, f"{name.removesuffix('.png')}.png", kind="figure", media_type="image/png")


def data(path: str | Path) -> Path:
    """Return the path of data, and record the SHA-256 of the file, or of all files of the folder.

    A name of ``[data]`` in ``nbmlops.toml`` gives the path that is declared there, wherever the
    notebook stands.

    Raises
    ------
    WrongUse
        When nothing is there.
    """
    source = _declared(str(path)) or Path(path)
    if not source.exists():
        raise WrongUse(
            f"there is no data at {source}",
            "A job sees what git sees: name a file that .gitignore names under [data] in"
            " nbmlops.toml; one that an earlier step writes belongs under that step's `outputs`.",
        )
    _emit("data", {"name": _name_of(source), "digest": digests.of_path(source)})
    return source


def _declared(name: str) -> Path | None:
    """Return the path that ``[data]`` gives a name: in a job as told, else as the file says."""
    project = os.environ.get(layout.PROJECT_VARIABLE)
    told = os.environ.get(layout.DATA_VARIABLE)
    if project and told:
        declared = msgspec.json.decode(told, type=dict[str, str])
        return Path(project) / declared[name] if name in declared else None
    root = layout.project_root(Path.cwd())
    if root is None:
        return None
    from nbmlops import project as settings

    found = settings.read(root).data_settings()
    return root / found[name].path if name in found else None


def _name_of(source: Path) -> str:
    """Return the path from the project's folder on, wherever the notebook stands in it."""
    project = os.environ.get(layout.PROJECT_VARIABLE)
    resolved = source.resolve()
    if project and resolved.is_relative_to(project):
        return resolved.relative_to(project).as_posix()
    return source.as_posix()


def log_model(
    model: Any,
    *,
    name: str | None = None,
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    files: str | Path | None = None,
) -> None:
    """Keep a fitted model with its schema and reference profile.

    A model that is not scikit-learn's has an entry under ``[models]`` in ``nbmlops.toml``, which
    names the function that loads it or the program that serves it, and is kept as ``files``: a
    file or a folder that the notebook has written. ``model`` is then the object that predicted in
    the notebook, or ``None``; what is loaded, or served, is held against it.

    ``train`` and ``test`` are pairs ``(X, y)``: X a DataFrame or an array of shape
    (rows, columns), y of shape (rows,). When the whole run has succeeded the model becomes the
    next version of ``name`` (the pipeline's name unless given). From ``test`` its score is
    recorded too: accuracy for a classifier, R squared for a regressor. What monitoring holds later
    calls against is kept as well (:mod:`nbmlops.monitoring.performance`): metrics with their
    intervals, and how often it was right, or how far off, with what it was asked and answered.

    Raises
    ------
    WrongUse
        When ``train`` or ``test`` are no table and a target of as many rows.
    ModelRefused
        When the model cannot be kept in the skops format, holds types that are not trusted, or
        the training data cannot be described as columns; or its loader gives another model; or it
        would answer otherwise when it is served.
    """
    from nbmlops import predictors, shortcuts
    from nbmlops import schema as contracts

    chosen = layout.checked_name(
        name or os.environ.get(layout.PIPELINE_VARIABLE) or "model", "model"
    )
    _check_pair(train, "train")
    if test is not None:
        _check_pair(test, "test")
    from nbmlops.monitoring import profile

    given = model
    model, kept = _kept(model, chosen, files)
    x_train, y_train = train
    schema = contracts.infer(
        x_train,
        y_train,
        classes=getattr(model, "classes_", None),
        probabilities=hasattr(model, "predict_proba"),
    )
    reference = profile.reference_profile(
        _columns(x_train),
        {column.name: column.kind for column in schema.columns},
        y_train,
        label=schema.output.kind == "label",
        answers=None if test is None or model is None else model.predict(test[0]),
    )
    scores = {str(key): float(value) for key, value in (metrics or {}).items()}
    shown = None
    if test is not None and model is not None:
        shown = _shown(model, schema, *test)
        scores = {**shown.scores, **scores}
    probe, sample = Probe(independent=False), None
    if model is not None:
        probe, sample = predictors.probe(model, schema, x_train)
        if given is not None and sample is not None:
            _check_same(given, schema, sample)
        if kept.format == formats.COMMAND:  # nobody has seen whether its program treats rows alike
            probe = records.replace(probe, form="given", independent=False)
    suffix = "skops" if kept.format == formats.SKOPS else "tar"
    left = {
        "model": _keep_bytes(kept.content, f"models/{chosen}/model.{suffix}", kind="model"),
        "schema": _keep_bytes(records.dump(schema), f"models/{chosen}/schema.json", kind="model"),
        "profile": _keep_bytes(
            records.dump(reference), f"models/{chosen}/profile.json", kind="model"
        ),
    }
    if probe.form == "numeric" and (numeric := shortcuts.numeric(model, schema)):
        left["numeric"] = _keep_bytes(
            numeric.to_bytes(), f"models/{chosen}/numeric.npz", kind="model"
        )
    if sample is not None:
        left["sample"] = _keep_bytes(
            records.dump(sample), f"models/{chosen}/sample.json", kind="model"
        )
    if shown is not None and shown.reference.rows:
        left["performance"] = _keep_bytes(
            records.dump(shown.reference), f"models/{chosen}/performance.json", kind="model"
        )
    if scores:
        _emit("metric", scores)
    model_values = {
        "name": chosen,
        "format": kept.format,
        "files": left,
        "metrics": scores,
        "probe": records.plain(probe),
        "loader": kept.loader,
        "command": list(kept.command),
        "image": kept.image,
    }
    _emit("model", model_values)


def _check_pair(pair: Any, role: str) -> None:
    """Refuse what is no table of rows and a target for each of them.

    Raises
    ------
    WrongUse
        It says what was passed, and what to pass.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise WrongUse(f"{role} is no pair of data", f"Pass {role}=(X, y).")
    features, target = pair
    _check_table(features, role)
    targets = None if _is_sparse(target) else _length(target)
    if targets is None:
        raise WrongUse(
            f"the target of {role} is a {type(target).__name__}, not one label or value a row",
            f"Pass {role}=(X, y), y a Series, an array or a list.",
        )
    if targets != len(features):
        raise WrongUse(
            f"{role} has {len(features)} rows and {targets} targets",
            f"Pass {role}=(X, y) as they came from the same split.",
        )


def _check_table(features: Any, role: str) -> None:
    import numpy as np

    what, usual = type(features).__name__, "Pass a DataFrame, or an array of shape (rows, columns)"
    if _is_sparse(features):
        raise WrongUse(
            f"the features of {role} are sparse, a {what}, and callers send whole rows",
            f"Pass {role}=(X.toarray(), y), and see that the model takes that.",
        )
    if hasattr(features, "columns") and hasattr(features, "iloc"):
        for name, dtype in zip(features.columns, features.dtypes, strict=True):
            if type(dtype).__name__ == "SparseDtype":
                raise WrongUse(
                    f"the column `{name}` is {dtype} in {role}, and callers send whole rows",
                    f"Pass {role}=(X.sparse.to_dense(), y).",
                )
    elif not isinstance(features, np.ndarray):
        raise WrongUse(
            f"the features of {role} are a {what}, which has no columns",
            f"{usual}: {role}=(pd.DataFrame(X), y), and fit the model on that too.",
        )


def _is_sparse(values: Any) -> bool:
    return hasattr(values, "toarray") and hasattr(values, "nnz")


def _length(values: Any) -> int | None:
    try:
        return len(values)
    except TypeError:
        return None


class _Kept(NamedTuple):
    """The bytes of a model, and how they become one that predicts."""

    content: bytes
    format: str
    loader: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None


def _kept(model: Any, name: str, files: str | Path | None) -> tuple[Any, _Kept]:
    """Return the model that is served, and how it is kept."""
    root = _project()
    settings = None
    if root is not None:
        from nbmlops import project

        settings = project.read(root).models.get(name)
    if settings is None or not settings.is_own_kind:
        if files is not None:
            raise WrongUse(
                f"nbmlops.toml does not say how the model `{name}` is loaded, so its files say"
                " nothing",
                f'Write [models.{name}] with loader = "package.module:function".',
            )
        return model, _Kept(formats.to_bytes(model), formats.SKOPS)
    if files is None:
        raise WrongUse(
            f"the model `{name}` is kept as files, and none are named",
            "Write them, then log_model(model, files=FOLDER, ...).",
        )
    content = archives.pack(Path(files))
    if settings.loader is None:
        return model, _Kept(
            content, formats.COMMAND, command=settings.command, image=settings.image
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.tar").write_bytes(content)
        archives.unpack(Path(folder) / "model.tar", Path(folder) / "model")
        loaded = formats.load_by(settings.loader, Path(folder) / "model", root or Path.cwd())
        return loaded, _Kept(content, formats.LOADER, loader=settings.loader)


def _check_same(given: Any, schema: ModelSchema, sample: Sample) -> None:
    from nbmlops import predictors

    found = predictors.Predictor(given, schema).answer(sample.records)
    if not all(map(predictors.agree, found, sample.predictions)):
        raise ModelRefused(
            "the loader gives a model that answers otherwise than the one that was passed",
            "Write the files of this very model, then log it.",
        )


def _project() -> Path | None:
    told = os.environ.get(layout.PROJECT_VARIABLE)
    return Path(told) if told else layout.project_root(Path.cwd())


def _columns(features: Any) -> dict[str, Any]:
    if hasattr(features, "columns"):
        return {str(name): features[name] for name in features.columns}
    return {f"x{index}": features[:, index] for index in range(features.shape[1])}


class _Shown(NamedTuple):
    """What the test set has shown: scores to be read, and what calls are held against."""

    scores: dict[str, float]
    reference: PerformanceReference


def _shown(model: Any, schema: ModelSchema, x_test: Any, y_test: Any) -> _Shown:
    from nbmlops.monitoring.performance import testsets

    found = model.predict(x_test)
    shares = model.predict_proba(x_test) if schema.output.probabilities else None
    return _Shown(
        _scores(model, schema, y_test, found, shares),
        testsets.performance_reference(schema, y_test, found, shares, _columns(x_test)),
    )


def _scores(
    model: Any, schema: ModelSchema, y_test: Any, answers: Any, probabilities: Any
) -> dict[str, float]:
    """Return accuracy, or R squared with the mean absolute and root mean squared error.

    Where the model has probabilities of two classes, also the area under the ROC curve and the
    logarithmic loss (scikit-learn's definitions, where it is installed).
    """
    import numpy as np

    truth, found = np.asarray(y_test).ravel(), np.asarray(answers).ravel()
    if schema.output.kind == "value":
        error = found.astype("float64") - truth.astype("float64")
        spread = float(((truth - truth.mean()) ** 2).sum())
        return {
            "r2": 1.0 - float((error**2).sum()) / spread if spread else float("nan"),
            "mean_absolute_error": float(np.abs(error).mean()),
            "root_mean_squared_error": float(np.sqrt((error**2).mean())),
        }
    scores = {"accuracy": float((found == truth).mean())}
    metrics = sys.modules.get("sklearn.metrics")
    classes = getattr(model, "classes_", ())
    if metrics is not None and len(classes) == 2 and len(np.unique(truth)) == 2:
        shares = None if probabilities is None else np.asarray(probabilities)
        if shares is not None:
            scores["roc_auc"] = float(metrics.roc_auc_score(truth == classes[1], shares[:, 1]))
            scores["log_loss"] = float(metrics.log_loss(truth, shares, labels=classes))
    return scores


def _folder() -> Path | None:
    folder = os.environ.get(layout.TRACKING_VARIABLE)
    return Path(folder) if folder and os.environ.get(layout.JOB_VARIABLE) else None


def _emit(kind: str, values: dict[str, Any]) -> None:
    folder = _folder()
    if folder is None:
        what = values["name"] if "name" in values else ", ".join(values)
        sys.stderr.write(f"nbmlops: {kind} {str(what)[:120]}. {_HINT}\n")
        return
    line = records.dump(Event(kind=kind, at=utc_now(), values=values)) + b"\n"
    descriptor = os.open(folder / layout.EVENTS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _keep_file(source: Path, name: str, kind: str) -> str:
    folder = _folder()
    if folder is not None:
        place = _place(folder, name)
        shutil.copyfile(source, place)
        _announce(place, name, kind, None)
    else:
        _emit("artifact", {"name": name})
    return name


def _keep_bytes(content: bytes, name: str, kind: str, media_type: str | None = None) -> str:
    folder = _folder()
    if folder is not None:
        place = _place(folder, name)
        place.write_bytes(content)
        _announce(place, name, kind, media_type)
    elif kind != "model":  # of a model one word is said, not one of each of its files
        _emit(kind, {"name": name})
    return name


def _place(folder: Path, name: str) -> Path:
    # The name is a label that travels in the event; the file's own name is made here.
    files = folder / "files"
    files.mkdir(exist_ok=True)
    return files / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _announce(place: Path, name: str, kind: str, media_type: str | None) -> None:
    values: dict[str, Any] = {"name": name, "file": place.name, "kind": kind}
    if media_type:
        values["media_type"] = media_type
    _emit("artifact", values)
