"""The launcher on a real cluster: its contract, what goes wrong there, and the least role.

``make test-cluster`` runs these, and fails when one of its variables is missing; elsewhere they are
skipped. Nothing is made outside the namespace, and nothing is left in it.
"""

import contextlib
import json
import os
import secrets
import time
import urllib.request

import contract
import msgspec
import pytest
import yaml

import cluster_variables
from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers.kubernetes import cluster as clusters
from nbmlops.launchers.kubernetes import names, rbac, standing
from nbmlops.launchers.kubernetes.cluster import Cluster
from nbmlops.launchers.kubernetes.launcher import KubernetesLauncher
from nbmlops.project import ClusterSettings
from nbmlops.records import JobHandle, Resources, Status

# The interpreter of the project side, in every image.
PYTHON = "/opt/nbmlops/project/bin/python"
# A trouble is final within a minute; the machine may be busy.
TROUBLE_S = 90

pytestmark = cluster_variables.MARKS


@pytest.fixture(autouse=True)
def _asked_for(monkeypatch):
    cluster_variables.require()
    # The first pod on a node pulls the image, and a claim is read by another pod.
    monkeypatch.setattr(contract, "DEADLINE_S", 120.0)


@pytest.fixture
def settings():
    exchange = os.environ["NBMLOPS_TEST_EXCHANGE"]
    return ClusterSettings(
        namespace=os.environ["NBMLOPS_TEST_NAMESPACE"],
        exchange=exchange,
        exchange_secret=os.environ["NBMLOPS_TEST_SECRET"] if "://" in exchange else None,
    )


@pytest.fixture
def place(tmp_path):
    return SmallPlace(tmp_path, python=PYTHON, image=os.environ["NBMLOPS_TEST_IMAGE"])


class SmallPlace(contract.Place):
    """Jobs that find a place on a small node."""

    def job(self, name, program, **changes):
        asked = changes.pop("resources", Resources())
        small = Resources(
            cpu_cores=min(asked.cpu_cores, 0.25),
            memory_mib=min(asked.memory_mib, 256),
            timeout_s=asked.timeout_s,
        )
        return super().job(name, program, **{"resources": small, **changes})


def listed(admin, kind, owner):
    """Return the objects of an owner; of a kind that nobody may list, none."""
    try:
        return admin.listed(kind, names.selector(owner))
    except LauncherUnavailable:
        assert kind == "Secret"
        return []


@contextlib.contextmanager
def cleaned(launcher):
    """Leave nothing of a launcher in the namespace."""
    try:
        yield launcher
    finally:
        admin = Cluster(launcher._settings, os.environ)
        for kind in ("Job", "Deployment"):
            for item in listed(admin, kind, launcher._owner):
                admin.delete(kind, item["metadata"]["name"])
        deadline = time.monotonic() + 90
        kinds = ("Pod", "Secret", "Service", "NetworkPolicy", "PodDisruptionBudget", "Job")
        while left := [
            (kind, item["metadata"]["name"])
            for kind in kinds
            for item in listed(admin, kind, launcher._owner)
        ]:
            assert time.monotonic() < deadline, left
            time.sleep(0.3)


@pytest.fixture
def launcher(settings, tmp_path):
    made = KubernetesLauncher(settings, f"t{secrets.token_hex(4)}", tmp_path / "kept")
    with cleaned(made):
        yield made


@contextlib.contextmanager
def also(launcher, *documents):
    """Make objects that only an administrator of the namespace may make, and remove them again."""
    admin = Cluster(launcher._settings, os.environ)
    try:
        made = [admin.apply(document) for document in documents]
    except LauncherUnavailable as error:
        pytest.skip(f"this kubeconfig may not make it: {error.message[:200]}")
    try:
        yield made
    finally:
        for document in documents:
            admin.delete(document["kind"], document["metadata"]["name"])


@pytest.fixture(autouse=True)
def _kinds_of_administrators(monkeypatch):
    more = {
        "LimitRange": "api/v1/namespaces/{}/limitranges",
        "ResourceQuota": "api/v1/namespaces/{}/resourcequotas",
        "Role": "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
        "RoleBinding": "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
        "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
    }
    monkeypatch.setattr(clusters, "PATHS", {**clusters.PATHS, **more})


@pytest.fixture
def impatient(monkeypatch):
    """Take a trouble for final after seconds, where another test has waited for it."""
    monkeypatch.setattr(standing, "PATIENCE_S", 4.0)


def until(launcher, handle, within_s, *wanted):
    deadline = time.monotonic() + within_s
    while (seen := launcher.poll([handle])[handle]).status not in wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.3)
    return seen


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_a_launcher_keeps_its_contract(launcher, place, promise):
    promise(launcher, place)


def test_secrets_reach_the_job_and_no_file_and_no_pod(launcher, place, monkeypatch):
    monkeypatch.setenv("API_KEY", "canary-5ecret-value")
    program = "import os, time; print(len(os.environ['API_KEY']), flush=True); time.sleep(5)"
    handle = launcher.launch(place.job("seen", program, secrets=("API_KEY",)))
    contract.until(launcher, handle, Status.RUNNING)
    marker = launcher._kept("seen").asked().marker
    for kind in ("Pod", "Job"):
        found = json.dumps(launcher.cluster.listed(kind, names.selector(launcher._owner)))
        assert "canary" not in found
        assert marker not in found
    launcher.cancel(handle)
    contract.secrets_reach_the_job_and_no_file(launcher, place, monkeypatch)


def test_a_job_cannot_read_what_its_outbox_is_marked_with(launcher, place):
    program = (
        "import os, glob;"
        "tried = [];"
        "print('EXCHANGE' in ' '.join(os.environ));"
        "[tried.append(open(f).read()) for f in glob.glob('/exchange/**', recursive=True)"
        " if os.path.isfile(f) and 'marker' in f];"
        "print(tried);"
        "open(f'/proc/{os.getppid()}/environ').read()"
    )
    handle = launcher.launch(place.job("curious", program))
    contract.until(launcher, handle, Status.FAILED)
    lines = list(launcher.logs(handle))
    assert {"False", "[]"} <= {*lines}  # what is said and what is complained of is not in order
    assert any("PermissionError" in line for line in lines)


def test_a_line_of_the_log_is_there_before_the_job_has_ended(launcher, place):
    program = "import time; print('first', flush=True); time.sleep(8); print('last')"
    handle = launcher.launch(place.job("live", program))
    following = launcher.logs(handle, follow=True)
    assert next(following) == "first"
    assert launcher.poll([handle])[handle].status is Status.RUNNING
    assert list(following) == ["last"]


def test_a_submission_is_three_calls_and_looking_at_all_jobs_is_one(launcher, place):
    launcher.check()
    before = launcher.cluster.calls
    first = launcher.launch(place.job("one", "import time; time.sleep(600)"))
    assert launcher.poll([first])[first].status is Status.PENDING
    assert launcher.cluster.calls - before <= 3
    handles = [first, launcher.launch(place.job("two", "import time; time.sleep(600)"))]
    for handle in handles:
        contract.until(launcher, handle, Status.RUNNING)
    before = launcher.cluster.calls
    launcher.poll(handles)
    assert launcher.cluster.calls - before == 1


def test_nothing_is_left_of_a_job_whose_end_is_known_and_it_stays_known(launcher, place):
    handle = launcher.launch(place.job("done", "print('x')"))
    contract.until(launcher, handle, Status.SUCCEEDED)
    deadline = time.monotonic() + 30
    while launcher.cluster.listed("Pod", names.selector(launcher._owner, "done")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    later = KubernetesLauncher(launcher._settings, launcher._owner, launcher._folder)
    assert later.poll([handle])[handle].status is Status.SUCCEEDED
    assert list(later.logs(handle)) == ["x"]
    assert later.cluster.calls == 0


def test_a_job_that_somebody_has_deleted_is_lost(launcher, place):
    handle = launcher.launch(place.job("taken", "import time; time.sleep(600)"))
    contract.until(launcher, handle, Status.RUNNING)
    launcher.cluster.delete("Job", names.object_name(launcher._owner, "taken"))
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.LOST, "job-lost")


def test_a_pod_that_the_cluster_takes_away_is_evicted_and_its_files_have_come(launcher, place):
    program = (
        "import os, pathlib, time; pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_text('x');"
        "print('begun', flush=True); time.sleep(600)"
    )
    handle = launcher.launch(place.job("drained", program))
    assert next(launcher.logs(handle, follow=True)) == "begun"
    (pod,) = launcher.cluster.listed("Pod", names.selector(launcher._owner, "drained"))
    name = pod["metadata"]["name"]
    path = f"api/v1/namespaces/{launcher.cluster.namespace}/pods/{name}/eviction"
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    try:
        launcher.cluster._ask("POST", path, {}, asked, "application/json")
    except LauncherUnavailable as error:
        pytest.skip(f"this kubeconfig may not evict: {error.message[:200]}")
    seen = contract.until(launcher, handle, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.LOST, "evicted")
    assert (place.outbox("drained") / "f").exists()


def test_an_image_that_cannot_be_pulled_is_told_within_a_minute(launcher, place):
    image = place.image.partition("@")[0] + "-not-there:0"
    handle = launcher.launch(place.job("noimage", "", image=image))
    seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "image-pull")
    assert handle not in launcher.jobs()


def test_a_job_that_finds_no_node_is_told_within_a_minute(launcher, place):
    huge = Resources(cpu_cores=1000, memory_mib=64)
    handle = launcher.launch(contract.Place.job(place, "huge", "", resources=huge))
    deadline = time.monotonic() + TROUBLE_S
    while (seen := launcher.poll([handle])[handle]).cause is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (seen.status, seen.cause.code) == (Status.PENDING, "unschedulable")
    seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "unschedulable")


def test_a_secret_that_is_not_there_is_told(launcher, place, impatient):
    container = {
        "name": "job",
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such", "key": "k"}}}],
    }
    patch = {"containers": [container]}
    settings = msgspec.structs.replace(launcher._settings, pod_patch=patch)
    patched = KubernetesLauncher(settings, launcher._owner, launcher._folder)
    handle = patched.launch(place.job("lacks", ""))
    seen = until(patched, handle, TROUBLE_S, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "pod-misconfigured")


def test_a_quota_that_is_used_up_is_told(launcher, place, impatient):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": f"q-{launcher._owner}"},
        "spec": {"hard": {"pods": "0"}},
    }
    with also(launcher, quota):
        handle = launcher.launch(place.job("many", ""))
        seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
        assert (seen.status, seen.cause.code) == (Status.FAILED, "quota")


def test_a_pod_that_the_cluster_does_not_admit_is_told(launcher, place, impatient):
    limits = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": f"l-{launcher._owner}"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "32Mi"}}]},
    }
    with also(launcher, limits):
        handle = launcher.launch(place.job("refused", ""))
        served = launcher.launch(place.job("refused2", "", port=8080))
        seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
        assert (seen.status, seen.cause.code) == (Status.FAILED, "admission-refused")
        seen = until(launcher, served, TROUBLE_S, *contract.FINAL)
        assert (seen.status, seen.cause.code) == (Status.FAILED, "admission-refused")


def test_a_batch_is_one_object_and_each_part_has_its_outbox(launcher, place):
    program = (
        "import os, pathlib, sys; name = os.environ['NBMLOPS_ATTEMPT'];"
        "pathlib.Path(os.environ['NBMLOPS_OUTBOX'], name).write_text(name); print(name);"
        "sys.exit(int(name == 'i1'))"
    )
    handle = launcher.launch(place.job("batch", program, parallel=3))
    seen = until(launcher, handle, 90, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "job-failed")
    assert "part 1" in seen.cause.message
    assert [attempt.name for attempt in seen.attempts] == ["i0", "i1", "i2"]
    assert [attempt.exit_code for attempt in seen.attempts] == [0, 1, 0]
    assert {path.name for path in place.outbox("batch").iterdir()} == {"i0", "i1", "i2"}
    assert list(launcher.logs(handle, attempt="i2")) == ["i2"]


def ready(launcher, handle):
    deadline = time.monotonic() + 60
    while not (seen := launcher.poll([handle])[handle]).ready:
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    return seen


def test_this_machine_reaches_a_service_and_other_jobs_do_by_its_address(launcher, place):
    server = place.job("front", contract.SERVER, port=8080, exposed=True, ready_path="/ready")
    handle = launcher.launch(server)
    address = ready(launcher, handle).address
    assert address.startswith("tcp:")
    with launcher.reach(handle) as near:
        for _ in range(20):
            url = f"http://{near.removeprefix('tcp:')}/ready"
            assert urllib.request.urlopen(url, timeout=10).status == 200
    program = (
        "import urllib.request;"
        f"print(urllib.request.urlopen('http://{address.removeprefix('tcp:')}/ready').status)"
    )
    caller = launcher.launch(place.job("caller", program))
    contract.until(launcher, caller, *contract.FINAL)
    assert list(launcher.logs(caller)) == ["200"]
    with launcher.reach(JobHandle(launcher="kubernetes", name="never")) as nowhere:
        assert not nowhere
    launcher.cancel(handle)
    contract.until(launcher, handle, Status.CANCELLED)


def test_a_service_that_ends_again_and_again_has_failed_with_its_code(launcher, place):
    handle = launcher.launch(place.job("crash", "import sys; sys.exit(7)", port=8080))
    seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "job-failed")
    assert "7" in seen.cause.message


def without_nothing(value):
    """Return a document without what is empty: the server keeps no such fields."""
    if isinstance(value, dict):
        kept = {key: without_nothing(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [], None)}
    return [without_nothing(item) for item in value] if isinstance(value, list) else value


ALONE = """
import http.server, json, os, pathlib
def tried(path):
    try:
        pathlib.Path(path).write_text("x")
        return True
    except OSError:
        return False
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {
            "greeting": pathlib.Path("/nbmlops/inbox/deep/greeting").read_text(),
            "there": sorted(os.listdir("/nbmlops")) + os.listdir("/nbmlops/inbox"),
            "exchange": os.path.exists("/exchange"),
            "told": sorted(name for name in os.environ if name.startswith("NBMLOPS")),
            "writes": [path for path in ("/tmp/x", "/nbmlops/inbox/x", "/x") if tried(path)],
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())
http.server.HTTPServer(("0.0.0.0", int(os.environ["NBMLOPS_PORT"])), Handler).serve_forever()
"""


def a_foreign_job(place, name, **changes):
    """Return a service as of an image that has nothing of ours, and a file in its inbox."""
    asked = {"carrier": place.image, "environment": {"NBMLOPS_PORT": "8080"}, **changes}
    job = place.job(name, ALONE, port=8080, ready_path="/ready", **asked)
    (place.inbox(name) / "deep").mkdir()
    (place.inbox(name) / "deep" / "greeting").write_text("hi")
    return job


def test_a_program_in_an_image_of_its_own_has_its_inbox_and_nothing_of_the_exchange(
    launcher, place
):
    handle = launcher.launch(a_foreign_job(place, "alone"))
    for _ in range(2):
        ready(launcher, handle)
        with launcher.reach(handle) as near:
            url = f"http://{near.removeprefix('tcp:')}/"
            told = json.loads(urllib.request.urlopen(url, timeout=10).read())
        assert told == {
            "greeting": "hi",
            "there": ["inbox", "deep"],
            "exchange": False,
            "told": ["NBMLOPS_PORT"],
            "writes": ["/tmp/x"],
        }
        launcher.scale(handle, 0)
        until(launcher, handle, TROUBLE_S, Status.CANCELLED)
        launcher.scale(handle, 1)
    launcher.cancel(handle)
    contract.until(launcher, handle, Status.CANCELLED)


@pytest.mark.parametrize("which", ["image", "carrier"])
def test_an_image_of_its_own_that_cannot_be_pulled_is_told(launcher, place, impatient, which):
    nowhere = place.image.partition("@")[0] + "-not-there@sha256:" + "0" * 64
    handle = launcher.launch(a_foreign_job(place, f"no{which}", **{which: nowhere}))
    seen = until(launcher, handle, TROUBLE_S, *contract.FINAL)
    assert (seen.status, seen.cause.code) == (Status.FAILED, "image-pull")
    assert "not-there" in seen.cause.message
    launcher.cancel(handle)


@pytest.mark.parametrize(
    ("kinds", "changes"),
    [
        ({"Job"}, {"secrets": ("X",)}),
        ({"Job"}, {"parallel": 2, "labels": {"run": "r1", "why": "to see, whether"}}),
        ({"Deployment", "HorizontalPodAutoscaler"}, {"port": 8080, "ready_path": "/ready"}),
        ({"Deployment", "Ingress"}, {"port": 8080, "exposed": True}),
        ({"Deployment"}, {"port": 8080, "ready_path": "/ready", "carrier": "there"}),
    ],
    ids=["run", "batch", "worker", "front", "foreign"],
)
def test_what_stands_is_what_was_planned(launcher, place, kinds, changes):
    more = {"max_replicas": 3, "ingress_host": "*.example.org", "ingress_class": "nginx"}
    launcher._settings = msgspec.structs.replace(launcher._settings, **more)
    if "carrier" in changes:
        changes = {**changes, "carrier": place.image}
    job = place.job(
        "stands", "import time; time.sleep(600)", environment={"A": "$(B) $C"}, **changes
    )
    assert kinds <= {document["kind"] for document in launcher.planned(job)}
    handle = launcher.launch(job)
    assert without_nothing(launcher.live(handle)) == without_nothing(list(launcher.planned(job)))


def test_the_least_role_is_enough(launcher, place, tmp_path, monkeypatch):
    namespace = launcher.cluster.namespace
    name = f"sa-{launcher._owner}"
    role = rbac.role(namespace)
    role["metadata"]["name"] = name
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    binding = rbac.binding(namespace, subject)
    binding["metadata"]["name"] = binding["roleRef"]["name"] = name
    with also(launcher, account, role, binding):
        connection = launcher.cluster.connection
        path = f"api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = launcher.cluster._ask("POST", path, {}, asked, "application/json")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "least",
            "contexts": [{"name": "least", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": connection.configuration.host,
                        "certificate-authority": connection.configuration.ssl_ca_cert,
                    },
                }
            ],
            "users": [{"name": "u", "user": {"token": token["status"]["token"]}}],
        }
        file = tmp_path / "least.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        least = KubernetesLauncher(
            launcher._settings,
            launcher._owner,
            tmp_path / "least",
            {**os.environ, "KUBECONFIG": str(file)},
        )
        least.check()
        with pytest.raises(LauncherUnavailable):
            least.cluster.listed("Secret")
        contract.a_job_that_ends_well_has_succeeded_and_filled_its_outbox(least, place)
        contract.a_cancelled_job_ends_and_cancelling_again_changes_nothing(least, place)
        contract.a_job_with_a_port_gets_ready_stops_and_starts_again(least, place)
        batch = least.launch(place.job("parts", "print(1)", parallel=2))
        until(least, batch, 60, Status.SUCCEEDED)
        served = place.job("served", contract.SERVER, port=8080, ready_path="/ready")
        handle = least.launch(served)
        ready(least, handle)
        with least.reach(handle) as near:
            url = f"http://{near.removeprefix('tcp:')}/ready"
            assert urllib.request.urlopen(url, timeout=10).status == 200
        assert len(least.live(handle)) == len(least.planned(served))
        least.cancel(handle)


def test_what_is_too_large_for_a_secret_goes_by_another_way_or_is_refused(launcher, place):
    program = (
        "import os, shutil;"
        "shutil.copytree(os.environ['NBMLOPS_INBOX'], os.environ['NBMLOPS_OUTBOX'] + '/a1')"
    )
    job = place.job("large", program)
    model = os.urandom(3 * 2**20)
    (place.inbox("large") / "model").write_bytes(model)
    if launcher._settings.exchange == "secret":
        with pytest.raises(parcels.ParcelTooLarge):
            launcher.launch(job)
        assert list(launcher.jobs()) == []
        return
    handle = launcher.launch(job)
    until(launcher, handle, 90, Status.SUCCEEDED)
    assert (place.outbox("large") / "a1" / "model").read_bytes() == model


def test_each_part_of_a_batch_gets_its_own_file(launcher, place):
    program = (
        "import os, pathlib; own = os.environ['NBMLOPS_ATTEMPT'];"
        "inbox, outbox = (pathlib.Path(os.environ[f'NBMLOPS_{n}BOX']) for n in ('IN', 'OUT'));"
        "(outbox / own).mkdir();"
        "text = (inbox / 'each' / own[1:] / 'rows').read_text();"
        "seen = len(list((inbox / 'each').iterdir()));"
        "(outbox / own / 'result.json').write_text(f'{text} {seen}')"
    )
    job = msgspec.structs.replace(place.job("apart", program, parallel=3), apart=True)
    for index in range(3):
        folder = place.inbox("apart") / "each" / str(index)
        folder.mkdir(parents=True)
        (folder / "rows").write_text(f"rows {index}")
    handle = launcher.launch(job)
    until(launcher, handle, 120, Status.SUCCEEDED)
    seen = 3 if launcher._settings.exchange == "secret" else 1
    for index in range(3):
        result = place.outbox("apart") / f"i{index}" / "result.json"
        assert result.read_text() == f"rows {index} {seen}"


def test_what_a_service_writes_comes_while_it_runs_where_there_is_a_way(launcher, place):
    program = (
        "import os, pathlib, time; calls = pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'calls');"
        "calls.mkdir(exist_ok=True); (calls / 'log').write_text('one\\n'); time.sleep(600)"
    )
    handle = launcher.launch(place.job("writes", program, port=8080))
    if launcher._settings.exchange == "secret":
        launcher.gather(handle)
        assert list(place.outbox("writes").iterdir()) == []
        return
    deadline = time.monotonic() + 60
    file = place.outbox("writes") / "calls" / "log"
    while not file.exists():
        assert time.monotonic() < deadline
        launcher.gather(handle)
        time.sleep(1)
    assert file.read_text() == "one\n"
