"""An API server of the few kinds that a launcher asks for, in memory, whose faults are drawn.

It is asked as a pool of urllib3 is. With each call the world goes on: Jobs get pods, pods start,
write and end. Before or after what a call does, it may fail, or whoever asked may be killed.
"""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import msgspec
import urllib3

from nbmlops import digests, parcels
from nbmlops.parcels import Outcome

KINDS = {"jobs": "Job", "secrets": "Secret", "pods": "Pod", "deployments": "Deployment"}
SAID = "2026-01-02T03:04:05Z"


class Killed(BaseException):
    """The process that asked was killed."""


class Clock:
    """A time that passes only when somebody sleeps."""

    def __init__(self):
        self.now = 1_790_000_000.0

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class ApiServer:
    """Objects by kind and name; ``draw`` decides what fails and what happens."""

    def __init__(self, draw, clock, faults=0.0, kills=0.0, outbox=b"", troubles=0.0):
        self.draw, self.clock = draw, clock
        self.faults, self.kills, self.troubles = faults, kills, troubles
        self.objects = {}
        self.pods_made = 0
        self.uids = 0
        self.outbox = outbox
        self.exit_code = draw.choice([0, 0, 0, 3])
        self.disturbed = False
        self.configuration = SimpleNamespace(host="https://fake", auth_settings=dict)

    def request(self, method, url, body=None, headers=None, timeout=None, retries=None, **_):
        self.clock.now += 0.05
        self.go_on()
        fault = self.draw.random() < self.faults
        kill = self.draw.random() < self.kills
        late = self.draw.random() < 0.5
        if kill and not late:
            raise Killed
        if fault and not late:
            return self._failed()
        answer = self._do(method, urlsplit(url), msgspec.json.decode(body) if body else None)
        if kill:
            raise Killed
        if fault and method != "GET":
            raise urllib3.exceptions.ReadTimeoutError(None, url, "timed out after it was done")
        return answer

    def _failed(self):
        kind = self.draw.choice(["read", "connect", 409, 429, 500, 503, 504])
        if kind == "read":
            raise urllib3.exceptions.ReadTimeoutError(None, "", "timed out")
        if kind == "connect":
            raise urllib3.exceptions.NewConnectionError(None, "refused")
        return answered(kind, {"message": "try again"}, {"retry-after": "1"})

    def _do(self, method, url, body):
        parts = url.path.strip("/").split("/")
        kind = KINDS.get(parts[parts.index("namespaces") + 2])
        rest = parts[parts.index("namespaces") + 3 :]
        asked = {key: value[0] for key, value in parse_qs(url.query).items()}
        if method == "GET" and rest[1:] == ["log"]:
            return self._log(rest[0])
        if method == "GET":
            return answered(200, {"items": self._listed(kind, asked.get("labelSelector", ""))})
        if method == "PATCH":
            return self._patched(kind, rest[0], body)
        if (kind, rest[0]) in self.objects:
            self.deleted(kind, rest[0])
            return answered(200, {})
        return answered(404, {"message": "not found"})

    def _listed(self, kind, selector):
        wanted = dict(term.split("=") for term in selector.split(",") if term)
        return [
            item
            for (found, _), item in self.objects.items()
            if found == kind and wanted.items() <= item["metadata"].get("labels", {}).items()
        ]

    def _patched(self, kind, name, body):
        item = self.objects.get((kind, name))
        if item is None:
            self.uids += 1
            about = {**body["metadata"], "uid": f"u{self.uids}", "creationTimestamp": SAID}
            item = {**body, "metadata": about, "status": {}}
            self.objects[kind, name] = item
        elif kind == "Secret":
            item["data"] = body["data"]
        return answered(200, item)

    def deleted(self, kind, name):
        item = self.objects.pop((kind, name))
        uid = item["metadata"].get("uid")
        for (other, key), owned in list(self.objects.items()):
            owners = [each["uid"] for each in owned["metadata"].get("ownerReferences", ())]
            if uid in owners and other == "Secret":
                del self.objects[other, key]
            elif uid in owners:
                owned["metadata"]["deletionTimestamp"] = SAID

    def go_on(self):
        """Let something of what may happen happen."""
        for (kind, name), item in list(self.objects.items()):
            if self.draw.random() < 0.5:
                continue
            if kind == "Job":
                self._job_goes_on(name, item)
            elif kind == "Pod":
                self._pod_goes_on(name, item)

    def _job_goes_on(self, name, job):
        if self.draw.random() < self.troubles / 4:
            self.disturbed = True
            self.deleted("Job", name)
        elif not job.get("started"):
            job["started"] = True
            self.pods_made += 1
            owner = {"uid": job["metadata"]["uid"]}
            labels = job["spec"]["template"]["metadata"]["labels"]
            about = {"name": f"{name}-x", "labels": labels, "ownerReferences": [owner]}
            self.objects["Pod", f"{name}-x"] = {
                "metadata": {**about, "uid": f"p{self.pods_made}", "creationTimestamp": SAID},
                "spec": {"restartPolicy": "Never"},
                "status": {"phase": "Pending"},
            }

    def _pod_goes_on(self, name, pod):
        status = pod["status"]
        if pod["metadata"].get("deletionTimestamp"):
            del self.objects["Pod", name]
            return
        if status["phase"] == "Running" and self.draw.random() < self.troubles:
            self.disturbed = True
            status["phase"] = "Failed"
            status["reason"] = "Evicted"
            return
        secret = self.objects.get(("Secret", name.removesuffix("-x")))
        if status["phase"] == "Pending" and secret is not None:
            status["phase"] = "Running"
            pod["marker"] = base64.b64decode(secret["data"]["marker"]).decode()
            self._state(pod, {"running": {"startedAt": SAID}})
        elif status["phase"] == "Running":
            status["phase"] = "Failed" if self.exit_code else "Succeeded"
            digest = digests.of_bytes(self.outbox)
            told = parcels.message(Outcome(exit_code=self.exit_code, digest=digest)).decode()
            ended = {"exitCode": self.exit_code, "reason": "Completed", "message": told}
            self._state(pod, {"terminated": {**ended, "startedAt": SAID, "finishedAt": SAID}})

    def _state(self, pod, state):
        pod["status"]["containerStatuses"] = [{"name": "job", "state": state}]

    def _log(self, name):
        pod = self.objects.get(("Pod", name))
        if pod is None or "marker" not in pod:
            return answered(404, {"message": "not found"})
        lines = [b"one\n", b"two\n"]
        if "terminated" in pod["status"].get("containerStatuses", [{}])[0].get("state", {}):
            lines += list(parcels.frames(self.outbox, pod["marker"]))
        whole = b"".join(lines)
        if self.draw.random() < self.faults:  # it is cut off on its way, without a word
            whole = whole[: self.draw.randrange(len(whole))]
        return answered(200, None, body=whole)


def answered(status, document, headers=None, body=None):
    data = json.dumps(document).encode() if body is None else body
    return SimpleNamespace(
        status=status,
        data=data,
        headers=headers or {},
        stream=lambda *_, **__: iter([data[:7], data[7:]]),
        release_conn=lambda: None,
        close=lambda: None,
    )
