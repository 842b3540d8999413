"""Images: what they are made of, and that the engine and a registry have them."""

import contextlib
import hashlib
import http.server
import json
import subprocess
import threading
import urllib.request
import uuid
from pathlib import Path

import pytest

import engines
from nbmlops import engine as engines_client
from nbmlops import environment, images, plans, project, records, sites
from nbmlops import workspace as workspaces
from nbmlops._version import __version__
from nbmlops.commands import elsewhere
from nbmlops.errors import (
    EnvironmentFailed,
    EnvironmentUnreachable,
    InvalidSettings,
    LauncherUnavailable,
    WrongUse,
)
from nbmlops.images import building, recipe
from services import docker_registry
from sources import git, notebook_text

# --- the recipe ----------------------------------------------------------------------------------

LOCK = {"requirements.txt": b"six==1.17.0\n"}
UV_LOCK = {
    "uv.lock": b"version = 1\n",
    "pyproject.toml": b"[project]\nname = 'a'\nversion = '1'\ndependencies = ['six']\n",
}


def made_of(**changes):
    asked = {
        "base": "python:3.12-slim",
        "tool": "msgspec==0.19.0\n",
        "uv": "0.9.0",
        "kit": ("nbmlops-1-py3-none-any.whl", b"wheel"),
        "lock": environment.plan(LOCK),
    }
    return recipe.Recipe(**asked | changes)


def parts(text):
    """Return the base's, the tool's and the project's lines of a Dockerfile."""
    base, _, rest = text.partition("# tool\n")
    tool, _, own = rest.partition("# project\n")
    return base, tool, own


def test_the_same_recipe_gives_the_same_dockerfile_context_and_id():
    one = made_of(build_args={"A": "1", "B": "2"}, ca_bundle=b"pem")
    two = made_of(build_args={"B": "2", "A": "1"}, ca_bundle=b"pem")
    assert recipe.dockerfile(one) == recipe.dockerfile(two)
    assert one.environment_id == two.environment_id
    backwards = dict(reversed(recipe.context(two).items()))
    assert building._archive(recipe.context(one).items()) == building._archive(backwards.items())


def test_a_changed_lock_changes_no_line_above_the_project_s():
    one = parts(recipe.dockerfile(made_of()))
    other = environment.plan({"requirements.txt": b"scikit-learn==1.5.0\n"})
    two = parts(recipe.dockerfile(made_of(lock=other)))
    none = parts(recipe.dockerfile(made_of(lock=None)))
    assert one[:2] == two[:2] == none[:2]
    assert "skops" in two[2]
    assert "skops" not in one[2]
    assert "/opt/nbmlops/project" in one[2]
    assert "/opt/nbmlops/project" not in none[2]


def test_what_changes_least_stands_first():
    text = recipe.dockerfile(made_of(ca_bundle=b"pem"))
    order = ["FROM ", "COPY ca.pem", "uv==0.9.0", "COPY tool.txt", "COPY nbmlops-1", "COPY lock/"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "changes",
    [
        {"base": "python:3.13-slim"},
        {"tool": "msgspec==0.20.0\n"},
        {"uv": "0.9.1"},
        {"kit": ("nbmlops-1-py3-none-any.whl", b"another")},
        {"lock": None},
        {"lock": environment.plan({"requirements.txt": b"six==1.16.0\n"})},
        {"lock": environment.plan(UV_LOCK)},
        {"build_args": {"PIP_INDEX_URL": "https://packages.example.com/simple"}},
        {"ca_bundle": b"pem"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_id_changes_with_everything_that_the_image_follows_from(changes):
    assert made_of(**changes).environment_id != made_of().environment_id


def test_an_id_says_whether_there_is_a_project_s_side():
    assert made_of().environment_id.startswith("e-")
    assert made_of(lock=None).environment_id.startswith("t-")


def test_certificates_are_trusted_before_anything_is_installed():
    text = recipe.dockerfile(made_of(ca_bundle=b"pem"))
    assert text.index("COPY ca.pem") < text.index("ENV SSL_CERT_FILE=") < text.index("RUN ")
    assert recipe.context(made_of(ca_bundle=b"pem"))["ca.pem"] == b"pem"
    assert "ca.pem" not in recipe.context(made_of())
    assert "ca.pem" not in recipe.dockerfile(made_of())


def test_a_build_argument_is_declared_and_its_value_stands_nowhere():
    given = {"PIP_INDEX_URL": "https://ada:canary@example.com", "https_proxy": "http://proxy:3128"}
    asked = made_of(build_args=given)
    assert "ARG PIP_INDEX_URL\n" in recipe.dockerfile(asked)
    assert "proxy" not in recipe.dockerfile(asked).lower()  # every engine knows that one
    assert b"canary" not in building._archive(recipe.context(asked).items())


@pytest.mark.parametrize("name", ["A B", "A\nRUN rm", "1A", "", "A=1", "A$(x)"])
def test_a_build_argument_that_is_no_name_is_refused(name):
    with pytest.raises(EnvironmentFailed, match="build argument"):
        recipe.dockerfile(made_of(build_args={name: "1"}))


def test_a_lock_of_uv_is_exported_where_it_is_installed():
    asked = made_of(lock=environment.plan(UV_LOCK))
    project_side = parts(recipe.dockerfile(asked))[2]
    assert "uv export --quiet --frozen --no-emit-project" in project_side
    assert {"lock/uv.lock", "lock/pyproject.toml"} <= set(recipe.context(asked))


def test_labels_are_those_of_the_image_annotations_and_cannot_end_early():
    text = recipe.dockerfile(made_of(base='a"b$c\\d'))
    (line,) = (one for one in text.splitlines() if one.startswith("LABEL "))
    assert 'org.opencontainers.image.base.name="a\\"b\\$c\\\\d"' in line
    assert "org.opencontainers.image.title=" in line
    assert text.splitlines()[-1] == f"USER {images.USER}:{images.USER}"


# --- the settings --------------------------------------------------------------------------------


def settings(folder, images_table):
    (folder / "nbmlops.toml").write_text(f"[project]\nname = 'tiny'\n[images]\n{images_table}\n")
    return project.read(folder).images


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("base = 'a'\nimage = 'b'", "one is enough"),
        ("dockerfile = 'Dockerfile'\nbase = 'a'", "one is enough"),
        ("base = 'a b'", "does not name an image"),
        ("base = 'a --squash'", "does not name an image"),
        ("base = '-f'", "does not name an image"),
        ("image = 'a\\nRUN b'", "does not name an image"),
        ("registry = 'https://registry.example.com'", "does not name an image"),
        ("dockerfile = '/etc/passwd'", "/etc/passwd"),
        ("dockerfile = '../Dockerfile'", r"\.\./Dockerfile"),
        ("registy = 'a'", "unknown key"),
        ("packages = 's3fs'", "packages"),
    ],
)
def test_a_wrong_setting_of_images_is_refused(tmp_path, table, words):
    with pytest.raises(InvalidSettings, match=words):
        settings(tmp_path, table)


@pytest.mark.parametrize(
    "name",
    [
        "python:3.12-slim",
        "registry.example.com:5000/team/churn",
        "127.0.0.1:5000/a/b__c:1.0_x",
        f"a@sha256:{'0f' * 32}",
    ],
)
def test_an_image_s_name_is_taken_as_engines_take_it(tmp_path, name):
    assert settings(tmp_path, f"base = '{name}'").base == name


# --- what a project asks for ---------------------------------------------------------------------


def away(tmp_path):
    """Return the variables of somebody whose engine does not answer."""
    cache = str(tmp_path / "cache")
    return {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "NBMLOPS_CACHE": cache}


def opened_with(top, table, *, lock="six==1.17.0\n", environ=None):
    """Write a project with one notebook and a lock, and open it."""
    top.mkdir(parents=True)
    (top / "nbmlops.toml").write_text(
        f"[project]\nname = 'tiny'\n[pipelines.train]\nsteps = [{{notebook = 'train.ipynb'}}]\n"
        f"[images]\n{table}\n"
    )
    (top / "train.ipynb").write_text(notebook_text(("parameters", "depth = 1"), "print(depth)"))
    git(top, "init", "--quiet", "--initial-branch=main")
    return locked(top, lock, environ=environ)


def locked(top, lock, *, environ=None):
    """Commit another lock, and open the project."""
    if lock is not None:
        (top / "requirements.txt").write_text(lock)
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "lock")
    return workspaces.open_at(top, environ=environ)


def head(workspace):
    return git(workspace.root, "rev-parse", "HEAD")


class AsContext:
    """What a command needs of its context, for a project that is open."""

    notebook = None

    def __init__(self, workspace):
        self._workspace = workspace
        self.start = workspace.root

    def workspace(self):
        return self._workspace


def test_what_would_be_sent_is_planned_without_an_engine(tmp_path):
    opened = opened_with(tmp_path / "tiny", "base = 'python:3.12-slim'", environ=away(tmp_path))
    planned = elsewhere.plan(AsContext(opened), "train", on="docker")
    (document,) = planned.documents
    name, _, tag = document["Image"].rpartition(":")
    assert (name, tag[:2]) == ("nbmlops/tiny", "e-")
    assert sites.planned(opened, "docker", head(opened)).environment_id == tag
    assert document["HostConfig"]["ReadonlyRootfs"] is True
    assert [change.becomes for change in planned.changes] == ["new"]
    with pytest.raises(LauncherUnavailable):
        sites.build(opened, head(opened))


def test_an_image_is_named_below_the_registry(tmp_path):
    table = "registry = 'registry.example.com/team'"
    opened = opened_with(tmp_path / "tiny", table, environ=away(tmp_path))
    planned = sites.planned(opened, "docker", head(opened))
    assert planned.image == f"registry.example.com/team/nbmlops/tiny:{planned.environment_id}"


def test_without_a_lock_there_is_no_image(tmp_path):
    opened = opened_with(tmp_path / "tiny", "", lock=None, environ=away(tmp_path))
    found = plans.pipelines.find(opened, "train")
    with pytest.raises(EnvironmentFailed, match="which packages") as told:
        plans.train(opened, found, {}, launcher="docker")
    assert "pip freeze" in told.value.hint


def test_a_build_argument_that_names_a_variable_takes_its_value_or_is_refused(tmp_path):
    table = "build_args = { PIP_INDEX_URL = '$COMPANY_INDEX' }"
    environ = away(tmp_path)
    opened = opened_with(tmp_path / "tiny", table, environ=environ)
    with pytest.raises(WrongUse, match="COMPANY_INDEX") as told:
        sites.planned(opened, "docker", head(opened))
    assert "export COMPANY_INDEX" in told.value.hint
    environ["COMPANY_INDEX"] = "https://one.example.com"
    one = sites.planned(opened, "docker", head(opened)).environment_id
    environ["COMPANY_INDEX"] = "https://two.example.com"
    assert sites.planned(opened, "docker", head(opened)).environment_id != one


def test_certificates_that_cannot_be_read_are_told(tmp_path):
    opened = opened_with(tmp_path / "tiny", "ca_bundle = 'none.pem'", environ=away(tmp_path))
    with pytest.raises(WrongUse, match=r"none\.pem") as told:
        sites.planned(opened, "docker", head(opened))
    assert "ca_bundle" in told.value.hint


def test_a_dockerfile_of_the_project_s_own_copies_what_lies_in_its_folder_alone(tmp_path):
    opened = opened_with(
        tmp_path / "tiny", "dockerfile = 'image/Dockerfile'", environ=away(tmp_path)
    )
    with pytest.raises(WrongUse, match=r"image/Dockerfile"):
        sites.planned(opened, "docker", head(opened))
    folder = opened.root / "image"
    (folder / "deep").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "deep" / "file").write_text("x")
    (folder / "link").symlink_to("/etc/passwd")
    assert set(sites._context(opened, "image/Dockerfile")) == {"Dockerfile", "deep/file"}
    one = sites.planned(opened, "docker", head(opened)).environment_id
    (folder / "deep" / "file").write_text("y")
    assert sites.planned(opened, "docker", head(opened)).environment_id != one
    (opened.root / "Dockerfile").write_text("FROM scratch\n")
    assert set(sites._context(opened, "Dockerfile")) == {"Dockerfile"}


# --- by a real engine ----------------------------------------------------------------------------


class Asked:
    """Counts what an engine was asked to build, push and pull."""

    def __init__(self, monkeypatch):
        import docker

        self.calls = []
        for name in ("build", "push", "pull"):
            self._count(monkeypatch, docker.APIClient, name)

    def _count(self, monkeypatch, client, name):
        real = getattr(client, name)

        def counted(*args, **options):
            self.calls.append(name)
            return real(*args, **options)

        monkeypatch.setattr(client, name, counted)

    def since(self):
        """Return what was asked since the last time."""
        found, self.calls = self.calls, []
        return found


@pytest.fixture
def asked(engine, monkeypatch):
    return Asked(monkeypatch)


@pytest.fixture
def told():
    return []


@pytest.fixture
def make(engine, tmp_path, tmp_path_factory, told):
    """Return a function that opens a project of its own name; its images are removed."""
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    environ = {"NBMLOPS_CACHE": str(tmp_path_factory.getbasetemp() / "images-cache")}
    opened = []

    def project_with(table="", **options):
        top = tmp_path / f"p{len(opened)}"
        bundle = f"ca_bundle = '{engines.CA_BUNDLE}'\n" if Path(engines.CA_BUNDLE).exists() else ""
        if "base" not in table and "dockerfile" not in table and "image" not in table:
            table += f"\nbase = '{engines.BASE}'"
        opened_with(top, bundle + table, environ=environ, **options).close()
        text = (top / "nbmlops.toml").read_text().replace("'tiny'", f"'{name}'")
        (top / "nbmlops.toml").write_text(text)
        opened.append(workspaces.open_at(top, environ=environ, say=told.append))
        return opened[-1]

    yield project_with
    for one in opened:
        one.close()
    listed = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    mine = [one for one in listed if name in one and "<none>" not in one]
    if mine:
        docker("rmi", "--no-prune", "-f", *mine)


def docker(*words, code=0):
    result = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert code is None or result.returncode == code, result.stderr
    return result.stdout


def layers(reference):
    return json.loads(docker("image", "inspect", reference))[0]["RootFS"]["Layers"]


@pytest.mark.docker
@pytest.mark.slow
def test_a_build_says_its_steps_and_is_not_repeated(make, asked, told):
    opened = make()
    built = sites.build(opened, head(opened))
    assert (built.built, built.pushed, built.source) == (True, False, "requirements.txt")
    assert built.packages["six"] == "1.17.0"
    assert built.packages["nbmlops"]
    assert asked.since() == ["build"]
    assert f"building the image {built.image} (once)" in told
    steps = [line for line in told if line.startswith("  ")]
    assert steps[0].startswith("  1/")
    assert steps[-1].split()[0] == "/".join([steps[-1].split("/")[1].split()[0]] * 2)
    told.clear()
    again = sites.build(opened, head(opened))
    assert (again.built, again.image_digest) == (False, built.image_digest)
    made = sites.prepare(opened, "docker", head(opened))
    assert made.image == built.image
    assert asked.since() == []
    assert told == []
    config = json.loads(docker("image", "inspect", built.image))[0]["Config"]
    assert config["User"] == f"{images.USER}:{images.USER}"
    assert config["Labels"]["org.opencontainers.image.base.name"] == engines.BASE


@pytest.mark.docker
@pytest.mark.slow
def test_a_changed_lock_makes_the_last_layer_alone_and_a_front_needs_none_of_it(make, asked):
    opened = make()
    one = sites.build(opened, head(opened))
    opened = locked(opened.root, "six==1.16.0\n", environ=opened.environ)
    two = sites.build(opened, head(opened))
    opened.close()
    assert (one.packages["six"], two.packages["six"]) == ("1.17.0", "1.16.0")
    before, after = layers(one.image), layers(two.image)
    assert len(before) == len(after)
    assert before[:-2] == after[:-2]  # all but the lock itself and what is installed from it
    assert before[-1] != after[-1]
    python, image = sites.tool(opened, "docker")
    assert python == images.TOOL_PYTHON
    assert layers(image) == before[:-2]


@pytest.mark.docker
@pytest.mark.slow
def test_a_base_image_that_cannot_be_had_is_told_and_nothing_is_built(make, asked):
    opened = make("base = '127.0.0.1:9/nobody/none:1'")
    with pytest.raises(engines_client.NoSuchImage, match="nobody/none:1") as caught:
        sites.build(opened, head(opened))
    assert "docker load" in caught.value.hint
    assert "`base` under [images]" in caught.value.hint
    assert asked.since() == ["pull"]


@pytest.mark.docker
@pytest.mark.slow
def test_a_lock_that_cannot_be_installed_is_told_in_the_installer_s_words(make, asked):
    opened = make(lock="six==99.0\n")
    with pytest.raises(EnvironmentFailed, match=r"six==99\.0") as caught:
        sites.build(opened, head(opened))
    assert not isinstance(caught.value, EnvironmentUnreachable)
    assert "\x1b" not in caught.value.message
    assert "Correct the lock" in caught.value.hint
    wanted = sites.planned(opened, "docker", head(opened))
    docker("image", "inspect", wanted.image, code=1)


@pytest.mark.docker
@pytest.mark.slow
def test_a_place_of_packages_that_does_not_answer_is_told_as_that(make):
    opened = make(lock="six @ http://127.0.0.1:9/six-1.17.0-py2.py3-none-any.whl\n")
    with pytest.raises(EnvironmentUnreachable, match="cannot be made"):
        sites.build(opened, head(opened))


@pytest.mark.docker
@pytest.mark.slow
def test_a_project_s_own_dockerfile_is_the_base(make, asked, told):
    opened = make("dockerfile = 'image/Dockerfile'")
    folder = opened.root / "image"
    folder.mkdir()
    # It adds nothing, so that the engine knows every layer that stands on it.
    (folder / "Dockerfile").write_text(f"FROM {engines.BASE}\n")
    built = sites.build(opened, head(opened))
    assert asked.since() == ["build", "build"]
    assert built.base.rpartition(":")[2].startswith("b-")
    assert f"building Dockerfile as {built.base} (once)" in told
    assert layers(built.image)[:1] == layers(engines.BASE)
    assert sites.build(opened, head(opened)).built is False
    assert asked.since() == []
    (folder / "Dockerfile").write_text(f"FROM {engines.BASE}\nCOPY mark /mark\nRUN false\n")
    (folder / "mark").write_text("ours")
    with pytest.raises(EnvironmentFailed, match="step `RUN false` failed"):
        sites.build(opened, head(opened))


@pytest.mark.docker
@pytest.mark.slow
def test_a_ready_image_is_taken_as_it_is_or_refused_with_the_remedy(make, asked, tmp_path):
    opened = make()
    built = sites.build(opened, head(opened))
    ready = make(f"image = '{built.image}'", lock=None)
    asked.since()
    found = sites.build(ready, head(ready))
    assert (found.image, found.image_digest) == (built.image, built.image_digest)
    assert (found.built, found.packages) == (False, built.packages)
    assert found.environment_id.startswith("i-")
    assert sites.tool(ready, "docker") == (images.TOOL_PYTHON, built.image)
    assert asked.since() == []

    bare = make(f"image = '{engines.BASE}'", lock=None)
    with pytest.raises(EnvironmentFailed, match="does not tell what it holds") as caught:
        sites.build(bare, head(bare))
    assert "nbmlops.images.about" in caught.value.hint

    older = built.image.rpartition(":")[0] + ":older"
    told = json.loads(
        docker("run", "--rm", "--entrypoint", "/bin/sh", built.image, "-c",
               f'while read -r line; do echo "$line"; done < {images.ABOUT_FILE}')
    )  # fmt: skip
    (tmp_path / "environment.json").write_text(json.dumps({**told, "nbmlops": "0.0.1"}))
    (tmp_path / "Dockerfile").write_text(
        f"FROM {built.image}\nCOPY environment.json {images.ABOUT_FILE}\n"
    )
    docker("build", "--quiet", "-t", older, str(tmp_path))
    wrong = make(f"image = '{older}'", lock=None)
    with pytest.raises(EnvironmentFailed, match=r"has nbmlops 0\.0\.1") as caught:
        sites.build(wrong, head(wrong))
    assert "pip install nbmlops==" in caught.value.hint


# --- registries ----------------------------------------------------------------------------------


def stand_in(opened):
    """Give the engine an image of a few bytes that says it is the project's: pushing is as real."""
    wanted = sites.planned(opened, "docker", head(opened))
    about = building.Held(
        python=images.PROJECT_PYTHON,
        python_version="3.12.1",
        platform="Linux",
        packages={"six": "1.17.0"},
        nbmlops=__version__,
    )
    archive = building._archive([(images.ABOUT_FILE.lstrip("/"), records.dump(about))])
    subprocess.run(
        ["docker", "import", "-", wanted.image], input=archive, check=True, capture_output=True
    )
    return wanted.image


@pytest.fixture
def registry(tmp_path):
    with docker_registry(tmp_path / "registry") as port:
        yield f"127.0.0.1:{port}"


def kept_pushes(opened, reference):
    """Return what is kept of the pushes of an image."""
    name = hashlib.sha256(reference.encode()).hexdigest()
    return list((opened.cache / "images").glob(f"{name}.pushed"))


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_is_pushed_once_and_the_registry_has_confirmed_it(make, asked, told, registry):
    opened = make(f"registry = '{registry}/team'")
    reference = stand_in(opened)
    pushed = sites.build(opened, head(opened), push=True)
    assert (pushed.built, pushed.pushed) == (False, True)
    name, _, digest = pushed.image.partition("@")
    assert name == reference.rpartition(":")[0]
    assert name.startswith(f"{registry}/team/nbmlops/tiny-")
    assert digest == pushed.image_digest
    assert asked.since() == ["push"]
    assert told[0] == f"pushing {reference}"
    assert told[1].endswith(": pushed")
    path = name.partition("/")[2]
    request = urllib.request.Request(
        f"http://{registry}/v2/{path}/manifests/{pushed.environment_id}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Docker-Content-Digest"] == digest
    again = sites.build(opened, head(opened), push=True)
    assert (again.pushed, again.image) == (False, pushed.image)
    assert asked.since() == []
    docker("rmi", "-f", reference, pushed.image)
    docker("pull", "--quiet", pushed.image)
    docker("rmi", "-f", pushed.image)


@pytest.mark.docker
@pytest.mark.slow
def test_a_registry_that_has_another_digest_does_not_count_as_pushed(
    make, asked, registry, monkeypatch
):
    opened = make(f"registry = '{registry}'")
    reference = stand_in(opened)
    with monkeypatch.context() as patch:
        patch.setattr(building, "confirmed", lambda *_: f"sha256:{'0' * 64}")
        with pytest.raises(building.PushFailed, match="the registry has sha256:0000") as caught:
            sites.build(opened, head(opened), push=True)
    assert "nbmlops build --push" in caught.value.hint
    assert kept_pushes(opened, reference) == []
    assert asked.since() == ["push"]
    assert sites.build(opened, head(opened), push=True).pushed is True
    assert asked.since() == ["push"]
    assert len(kept_pushes(opened, reference)) == 1


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_made_anew_under_the_same_name_is_pushed_again(make, asked, registry):
    opened = make(f"registry = '{registry}'")
    reference = stand_in(opened)
    one = sites.build(opened, head(opened), push=True)
    docker("rmi", "-f", reference)
    stand_in(opened)
    two = sites.build(opened, head(opened), push=True)
    assert asked.since() == ["push", "push"]
    assert one.image != two.image
    assert two.pushed is True


@contextlib.contextmanager
def refusing():
    """Run a registry that lets nobody in."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.send_response(401)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("WWW-Authenticate", 'Basic realm="the test\'s"')
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.docker
@pytest.mark.slow
def test_a_registry_that_lets_nobody_in_is_told(make):
    with refusing() as broken:
        opened = make(f"registry = '{broken}'")
        reference = stand_in(opened)
        with pytest.raises(building.PushFailed, match="was not pushed") as caught:
            sites.build(opened, head(opened), push=True)
    assert "docker login" in caught.value.hint
    assert kept_pushes(opened, reference) == []


@pytest.mark.docker
@pytest.mark.slow
def test_a_registry_that_fails_at_the_last_step_of_a_push_is_told(make, registry, tmp_path):
    opened = make(f"registry = '{registry}'")
    reference = stand_in(opened)
    path = engines_client.split(reference)[0].partition("/")[2]
    spoiled = tmp_path / "registry/data/docker/registry/v2/repositories" / path / "_manifests"
    spoiled.parent.mkdir(parents=True)
    spoiled.write_text("a file where a folder has to be: the registry answers 500")
    with pytest.raises(building.PushFailed, match="was not pushed"):
        sites.build(opened, head(opened), push=True)
    assert kept_pushes(opened, reference) == []
    spoiled.unlink()
    assert sites.build(opened, head(opened), push=True).pushed is True


@pytest.mark.docker
@pytest.mark.slow
def test_a_push_without_a_registry_says_where_to_name_one(make):
    opened = make()
    stand_in(opened)
    with pytest.raises(WrongUse, match="no registry") as caught:
        sites.build(opened, head(opened), push=True)
    assert "registry =" in caught.value.hint
