"""The project: what ``nbmlops.toml`` says, checked.

The file is read strictly: an unknown key is refused with the nearest known one.
"""

from __future__ import annotations

import graphlib
import math
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from nbmlops import layout
from nbmlops.errors import InvalidSettings, NoProject, WrongUse, nearest
from nbmlops.records import Bounds, Question, Resources

QUESTIONS: tuple[Question, ...] = ("features", "predictions", "bounds", "performance")
NEVER = "never"
MAX_WEBHOOKS = 10


class StepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: a notebook, the files it leaves for later steps, fixed parameters."""

    notebook: str
    name: str | None = None
    after: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}

    @property
    def step(self) -> str:
        """The step's name: as given, else the notebook's."""
        return self.name or Path(self.notebook).stem


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline: its steps, which run one after the other unless they say ``after``.

    ``metric`` is what a sweep optimises, ``direction`` which way.
    """

    steps: tuple[StepSettings, ...]
    resources: Resources = Resources()
    metric: str | None = None
    direction: Literal["maximize", "minimize"] = "maximize"


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[project]`` table."""

    name: str
    secrets: tuple[str, ...] = ()
    untracked_limit_mib: int = 10


class DataSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``[data]``: a file or folder of the project; ``url`` is where it comes from.

    A text instead of a table is the ``path`` alone. ``schema`` names the model, or one of its
    versions, whose columns the rows must have.
    """

    path: str
    url: str | None = None
    schema: str | None = None


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``[models]``: how a model is loaded, or served, and what it answers plausibly.

    ``loader`` is a function of the project, ``package.module:function``, that makes an object with
    ``predict`` of the model's folder; ``command`` a program that serves it by the Open Inference
    Protocol V2, one of the project or, with ``image``, of that container image, which may also have
    such a program as its entry point. There is a loader, or a program; a model of scikit-learn
    needs neither, and has an entry for the sake of its ``bounds`` alone.
    """

    loader: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None
    bounds: Bounds | None = None

    @property
    def is_own_kind(self) -> bool:
        """Whether it says how the model is loaded or served, as one that is not scikit-learn's."""
        return bool(self.loader or self.command or self.image)


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[store]`` table: ``url`` of a PostgreSQL database instead of a SQLite file."""

    url: str | None = None


class ArtifactSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[artifacts]`` table: an fsspec ``url`` instead of a folder, with its ``options``."""

    url: str | None = None
    options: dict[str, Any] = {}


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[monitoring.alerts]`` table: what raises an alert, when, and who is told.

    One of ``questions`` raises it when its answer was no in ``after`` windows in a row, and it is
    over after ``recover`` windows that are as in training. ``repeat`` is a length such as ``24h``,
    or ``never``. ``webhooks`` are URLs, ``webhook_secrets`` names of environment variables that
    hold some; which hosts may be told is up to each machine.
    """

    questions: tuple[Question, ...] = QUESTIONS
    after: int = 2
    recover: int = 2
    repeat: str = "24h"
    log: bool = True
    webhooks: tuple[str, ...] = ()
    webhook_secrets: tuple[str, ...] = ()

    @property
    def repeated_after(self) -> timedelta | None:
        """After how long people are reminded of an alert; never: ``None``."""
        return None if self.repeat == NEVER else length(self.repeat)


class MonitoringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[monitoring]`` table: the stated budget of false alarms, and who hears of alarms.

    ``every`` is a length such as ``15m``: how often each endpoint is looked at by whoever ticks;
    ``window`` which calls are then looked at, those of the last so long, and ``on`` the launcher
    whose job does it; the process that ticks does it itself without one. ``template`` is a notebook
    of the project, from which those are made that ``monitor --notebook`` writes.
    """

    false_alarms: int = 1
    windows: int = 100
    every: str | None = None
    window: str = "24h"
    on: Literal["local", "docker", "kubernetes"] | None = None
    template: str | None = None
    alerts: AlertSettings = AlertSettings()


class CallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[calls]`` table: what the call log keeps, how, and for how long.

    ``never`` are columns that are not logged, ``hashed`` those that are logged as keyed hashes;
    ``keep`` is a length such as ``90d``, after which calls may be removed.
    """

    never: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    keep: str | None = None

    @property
    def kept_for(self) -> timedelta | None:
        """How long calls are kept; for ever: ``None``."""
        return None if self.keep is None else length(self.keep)


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[images]`` table: what container images are made of, and where they are kept.

    ``base`` is the image that ours are put on, ``dockerfile`` one of the project's own that makes
    it; ``image`` one that is ready, and is used as it is. ``packages`` are added to the tool's
    side. ``build_args`` are given to the build, ``$NAME`` standing for a variable of whoever
    builds; ``ca_bundle`` is a file of certificates that is trusted there. ``registry`` is where
    images are pushed.
    """

    base: str | None = None
    dockerfile: str | None = None
    image: str | None = None
    packages: tuple[str, ...] = ()
    registry: str | None = None
    ca_bundle: str | None = None
    build_args: dict[str, str] = {}


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[kubernetes]`` table: the cluster, and how inboxes and outboxes travel.

    ``exchange`` is ``secret``, ``pvc:NAME`` or an fsspec URL; the keys of the Secret
    ``exchange_secret`` become variables of the program that ships to an object store.
    ``max_replicas`` above 1 scales workers by their load; ``idle_s`` without calls stops them.
    ``pod_patch`` is merged into the specification of every pod, and the whole is checked again.
    """

    context: str | None = None
    namespace: str | None = None
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    exchange: str = "secret"
    exchange_secret: str | None = None
    ingress_host: str | None = None
    ingress_class: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = {}
    max_replicas: int = 1
    idle_s: int | None = None
    pod_patch: dict[str, Any] = {}

    @property
    def claim(self) -> str | None:
        """The PersistentVolumeClaim through which outboxes travel; with another way ``None``."""
        return self.exchange.removeprefix("pvc:") if self.exchange.startswith("pvc:") else None

    def host_of(self, name: str) -> str | None:
        """Return the host by which an Ingress knows a service, where the settings ask for one."""
        if self.ingress_host is None or not self.ingress_host.startswith("*."):
            return self.ingress_host
        return f"{name}{self.ingress_host[1:]}"

    @property
    def url(self) -> str | None:
        """The object store through which inboxes and outboxes travel, or ``None``."""
        return self.exchange if "://" in self.exchange else None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of ``nbmlops.toml``."""

    project: ProjectSettings
    pipelines: dict[str, PipelineSettings] = {}
    data: dict[str, str | DataSettings] = {}
    rules: dict[str, Literal["off", "advise", "warn", "block"]] = {}
    models: dict[str, ModelSettings] = {}
    store: StoreSettings = StoreSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    calls: CallSettings = CallSettings()
    images: ImageSettings = ImageSettings()
    kubernetes: ClusterSettings = ClusterSettings()

    def data_settings(self) -> dict[str, DataSettings]:
        """Return the entries of ``[data]``, each as a table."""
        return {
            name: DataSettings(path=entry) if isinstance(entry, str) else entry
            for name, entry in self.data.items()
        }


_LOADER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_REFERENCE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?(?::[1-9][0-9]{0,8})?")
_OBJECT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TABLES: dict[str, type[msgspec.Struct]] = {
    "": Settings,
    "project": ProjectSettings,
    "monitoring": MonitoringSettings,
    "alerts": AlertSettings,
    "calls": CallSettings,
    "images": ImageSettings,
    "kubernetes": ClusterSettings,
    "store": StoreSettings,
    "artifacts": ArtifactSettings,
    "data": DataSettings,
    "resources": Resources,
    "models": ModelSettings,
    "bounds": Bounds,
    "steps": StepSettings,
    "pipelines": PipelineSettings,
}


def read(root: Path) -> Settings:
    """Read and check ``nbmlops.toml`` in the folder ``root``.

    Raises
    ------
    NoProject
        When there is no such file.
    InvalidSettings
        When it is not TOML, has an unknown key, or a value of the wrong type.
    """
    path = root / layout.SETTINGS_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise no_project(root) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"{path} is not valid TOML: {error}", f"Correct it and try again: {path}"
        ) from error
    _refuse_unknown_keys(document, path)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise InvalidSettings(f"{path}: {error}", f"Correct it and try again: {path}") from error
    _check_names(settings, path)
    return settings


def no_project(start: Path) -> NoProject:
    """Return the error for a folder without a project at or above it."""
    return NoProject(
        f"there is no {layout.SETTINGS_FILE} in {start} or above",
        "Go to your project's folder, or make one: `nbmlops init my-project --example`.",
        path=str(start),
    )


def _refuse_unknown_keys(document: dict[str, Any], path: Path) -> None:
    for kind, where, table in _tables(document):
        known = [field.name for field in msgspec.structs.fields(_TABLES[kind])]
        for key in table:
            if key not in known:
                raise InvalidSettings(
                    f"{path}: {where}has an unknown key `{key}` (line {_line_of(path, key)})",
                    nearest(key, known),
                    key=key,
                )


def _tables(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each table of the file with its kind and where it stands."""
    yield "", "", document
    for name, found in _table(document.get("models")).items():
        yield "models", f"[models.{name}] ", _table(found)
        yield "bounds", f"[models.{name}.bounds] ", _table(_table(found).get("bounds"))
    single = ("project", "monitoring", "calls", "images", "kubernetes", "store", "artifacts")
    for key in single:
        yield key, f"[{key}] ", _table(document.get(key))
    alerts = _table(document.get("monitoring")).get("alerts")
    yield "alerts", "[monitoring.alerts] ", _table(alerts)
    for name, found in _table(document.get("data")).items():
        yield "data", f"[data.{name}] ", _table(found)
    for name, found in _table(document.get("pipelines")).items():
        pipeline = _table(found)
        yield "pipelines", f"[pipelines.{name}] ", pipeline
        where = f"[pipelines.{name}.resources] "
        yield "resources", where, _table(pipeline.get("resources"))
        steps = pipeline.get("steps")
        for number, step in enumerate(steps if isinstance(steps, list) else (), 1):
            yield "steps", f"[pipelines.{name}] step {number}: ", _table(step)


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _line_of(path: Path, key: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if key in line and not line.lstrip().startswith("#"):
            return number
    return 1


def _check_names(settings: Settings, path: Path) -> None:
    layout.checked_name(settings.project.name, "project")
    for name, pipeline in settings.pipelines.items():
        layout.checked_name(name, "pipeline")
        if not pipeline.steps:
            raise InvalidSettings(
                f"{path}: pipeline `{name}` has no steps",
                f'Add one: steps = [{{ notebook = "notebooks/{name}.ipynb" }}]',
            )
        for file in [f for s in pipeline.steps for f in (s.notebook, *s.outputs)]:
            checked_relative(file, path)
        _check_steps(name, pipeline, path)
    _check_calls(settings.calls, path)
    _check_images(settings.images, path)
    _check_cluster(settings.kubernetes, path)
    _check_monitoring(settings.monitoring, path)
    for name, model in settings.models.items():
        layout.checked_name(name, "model")
        _check_model(name, model, path)
        if model.bounds is not None:
            _check_bounds(name, model.bounds, path)
    for name, entry in settings.data_settings().items():
        layout.checked_name(name, "data set")
        checked_relative(entry.path, path)
        if entry.schema is not None and not _REFERENCE.fullmatch(entry.schema):
            raise InvalidSettings(
                f"{path}: [data.{name}] has the schema `{entry.schema[:80]}`, which names no model",
                'Write schema = "MODEL", or "MODEL:VERSION" such as "churn:3".',
                key="schema",
            )


def _check_model(name: str, model: ModelSettings, path: Path) -> None:
    if bool(model.loader) == bool(model.command or model.image) and (
        model.is_own_kind or model.bounds is None
    ):
        raise InvalidSettings(
            f"{path}: [models.{name}] has neither a loader nor a command or an image, or both",
            'Write loader = "package.module:function"; or command = ["program", ...],'
            ' image = "registry.example.com/team/name@sha256:...", or these two. A model of'
            f" scikit-learn needs none of them, and may have [models.{name}.bounds].",
        )
    if model.image is not None and not _IMAGE.fullmatch(model.image):
        raise InvalidSettings(
            f"{path}: [models.{name}] image: `{model.image[:80]}` does not name an image",
            'Write it as image = "registry.example.com/team/name@sha256:...".',
            key="image",
        )
    if model.loader and not _LOADER.fullmatch(model.loader):
        raise InvalidSettings(
            f"{path}: [models.{name}] has the loader `{model.loader[:80]}`",
            'Write loader = "package.module:function".',
        )


def _check_bounds(name: str, bounds: Bounds, path: Path) -> None:
    """Refuse bounds that no model could have; whether they are this one's is seen at deploy."""
    where = f"{path}: [models.{name}.bounds]"
    low, high, confidence = bounds.low, bounds.high, bounds.confidence
    if not (bounds.of_values or bounds.of_labels):
        raise InvalidSettings(
            f"{where} declares nothing",
            "Write low and high for a model that answers values;"
            ' labels = ["yes", "no"], confidence = 0.5 or both for one that answers labels.',
        )
    if bounds.of_values and bounds.of_labels:
        raise InvalidSettings(
            f"{where} has bounds of values and of labels, and a model answers one of them",
            "Leave low and high, which are of values; or labels and confidence.",
        )
    if any(number is not None and math.isnan(number) for number in (low, high, confidence)):
        raise InvalidSettings(
            f"{where} has a bound that is no number", "Write a number; inf and -inf are no bound."
        )
    if low is not None and high is not None and low > high:
        raise InvalidSettings(
            f"{where} has low = {low:g}, which is above high = {high:g}", "Exchange them."
        )
    if bounds.labels is not None and not bounds.labels:
        raise InvalidSettings(
            f"{where} allows no label at all", 'Name those that are plausible: labels = ["yes"].'
        )
    if confidence is not None and not 0.0 < confidence <= 1.0:
        raise InvalidSettings(
            f"{where} has confidence = {confidence:g}, which is no probability",
            "Write a number above 0 and up to 1, such as confidence = 0.5.",
        )


# The URLs that may be written: no user, no fragment, nothing that two parsers could read in two
# ways. A host in brackets is an IPv6 address.
WEBHOOK = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,2000})?"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _check_monitoring(settings: MonitoringSettings, path: Path) -> None:
    for key, told in (("every", settings.every), ("window", settings.window)):
        try:
            _ = told is None or length(told)
        except WrongUse as error:
            raise InvalidSettings(
                f"{path}: [monitoring] {key}: {error.message}",
                f'Write it as {key} = "24h".',
                key=key,
            ) from error
    if settings.template is not None:
        checked_relative(settings.template, path)
        if not settings.template.endswith(".ipynb"):
            raise InvalidSettings(
                f"{path}: [monitoring] template: `{settings.template[:80]}` is no notebook",
                'Write it as template = "notebooks/monitoring_report.ipynb".',
                key="template",
            )
    _check_alerts(settings.alerts, path)


def _check_alerts(settings: AlertSettings, path: Path) -> None:
    where = f"{path}: [monitoring.alerts]"
    for key, count in (("after", settings.after), ("recover", settings.recover)):
        if count < 1:
            raise InvalidSettings(
                f"{where} has {key} = {count}",
                f"Write {key} as a number of windows, from 1.",
                key=key,
            )
    try:
        _ = settings.repeated_after
    except WrongUse as error:
        raise InvalidSettings(
            f"{where} repeat: {error.message}", 'Write it as repeat = "24h", or "never".'
        ) from error
    for url in settings.webhooks:
        if not WEBHOOK.fullmatch(url):
            shown = url.partition("?")[0][:60] if "@" not in url else "with a user in it"
            raise InvalidSettings(
                f"{where} webhooks: the URL `{shown}` cannot be one",
                'Write it as "https://hooks.example.com/path", in ASCII and without a user. One'
                ' that is secret is in an environment variable: webhook_secrets = ["NAME"].',
                key="webhooks",
            )
    for name in settings.webhook_secrets:
        if not _VARIABLE.fullmatch(name):
            # Not shown: somebody may have written the URL itself.
            raise InvalidSettings(
                f"{where} webhook_secrets has what is not the name of an environment variable",
                'Write names: webhook_secrets = ["SLACK_WEBHOOK"]; the URL is in the variable.',
                key="webhook_secrets",
            )
    if len(settings.webhooks) + len(settings.webhook_secrets) > MAX_WEBHOOKS:
        raise InvalidSettings(
            f"{where} has more than {MAX_WEBHOOKS} webhooks", "Have one of them tell the others."
        )


def length(text: str) -> timedelta:
    """Return the length of time that ``10s``, ``30m``, ``24h`` or ``90d`` says.

    Raises
    ------
    WrongUse
        For anything else.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if not found:
        raise WrongUse(f"`{text[:40]}` is no length of time", "Write it as 30m, 24h or 7d.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _check_calls(settings: CallSettings, path: Path) -> None:
    if both := sorted({*settings.never} & {*settings.hashed}):
        raise InvalidSettings(
            f"{path}: [calls] names `{both[0]}` in never and in hashed", "Take it out of one."
        )
    try:
        _ = settings.kept_for
    except WrongUse as error:
        raise InvalidSettings(
            f"{path}: [calls] keep: {error.message}", 'Write it as keep = "90d".'
        ) from error


_IMAGE = re.compile(
    r"[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


def _check_images(settings: ImageSettings, path: Path) -> None:
    given = {"base": settings.base, "dockerfile": settings.dockerfile, "image": settings.image}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidSettings(
            f"{path}: [images] has {' and '.join(named)}, of which one is enough",
            "Leave one: base to put ours on, dockerfile to make that, image to use it as it is.",
        )
    if settings.dockerfile is not None:
        checked_relative(settings.dockerfile, path)
    for key, value in (("base", settings.base), ("image", settings.image),
                       ("registry", settings.registry)):  # fmt: skip
        if value is not None and not _IMAGE.fullmatch(value):
            raise InvalidSettings(
                f"{path}: [images] {key}: `{value[:80]}` does not name an image or a registry",
                'Write it as base = "python:3.12-slim", registry = "registry.example.com/team".',
                key=key,
            )


def _check_cluster(settings: ClusterSettings, path: Path) -> None:
    names = (settings.namespace, settings.service_account, settings.claim)
    for name in (*names, settings.exchange_secret, *settings.image_pull_secrets):
        if name is not None and not _OBJECT.fullmatch(name):
            raise InvalidSettings(
                f"{path}: [kubernetes] names `{name[:80]}`, which can be no object of a cluster",
                "Write the name as `kubectl get` shows it.",
            )
    if settings.exchange != "secret" and settings.claim is None and settings.url is None:
        raise InvalidSettings(
            f"{path}: [kubernetes] has the exchange `{settings.exchange[:80]}`",
            'Write exchange = "secret", "pvc:NAME", or a URL such as "s3://bucket/folder".',
            key="exchange",
        )
    if settings.max_replicas < 1 or (settings.idle_s is not None and settings.idle_s < 1):
        raise InvalidSettings(
            f"{path}: [kubernetes] has a count below 1",
            "Write max_replicas and idle_s as whole numbers from 1.",
        )


def _check_steps(name: str, pipeline: PipelineSettings, path: Path) -> None:
    names = [step.step for step in pipeline.steps]
    for step in names:
        layout.checked_name(step, "step")
    doubled = next((step for step in names if names.count(step) > 1), None)
    if doubled:
        raise InvalidSettings(
            f"{path}: pipeline `{name}` has two steps named `{doubled}`",
            "Give each step a name of its own.",
        )
    for step in pipeline.steps:
        for earlier in step.after or ():
            if earlier not in names:
                raise InvalidSettings(
                    f"{path}: step `{step.step}` of pipeline `{name}` comes after `{earlier}`,"
                    " which is no step of it",
                    nearest(earlier, names),
                )
    in_order(name, pipeline, path)


def in_order(
    name: str, pipeline: PipelineSettings, path: Path
) -> tuple[tuple[StepSettings, tuple[str, ...]], ...]:
    """Return the steps so that each comes after those it needs, with their names.

    A step without ``after`` comes after the one above it; ``after = []`` needs none.

    Raises
    ------
    InvalidSettings
        When steps wait for each other in a circle.
    """
    needs: dict[str, tuple[str, ...]] = {}
    above: tuple[str, ...] = ()
    for step in pipeline.steps:
        needs[step.step] = above if step.after is None else step.after
        above = (step.step,)
    try:
        order = tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise InvalidSettings(
            f"{path}: steps of pipeline `{name}` wait for each other: {circle}",
            "Take one of them out of `after`.",
        ) from None
    by_name = {step.step: step for step in pipeline.steps}
    return tuple((by_name[step], needs[step]) for step in order)


def checked_relative(file: str, path: Path) -> str:
    """Return a path that stays inside the project's folder, or refuse it."""
    parts = Path(file).parts
    if not parts or Path(file).is_absolute() or {"..", ".git"} & {*parts} or "\0" in file:
        raise InvalidSettings(
            f"{path}: `{file}` is not a path inside the project",
            "Write it relative to the project's folder, without `..`.",
        )
    return file
