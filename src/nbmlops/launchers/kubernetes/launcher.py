"""Jobs in a Kubernetes cluster.

A job is launched by applying its documents, the one that owns the others first. How all jobs fare
is one listing of pods; Jobs, Deployments and events are asked for only where a job has no pod. When
a program has ended, its log and outbox are fetched and kept, and then its objects are removed:
an end that was told once is known for ever, whatever the cluster forgets.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbmlops import layout, parcels
from nbmlops.errors import NbmlopsError
from nbmlops.launchers import places
from nbmlops.launchers.kubernetes import (
    collecting,
    depots,
    forwarding,
    manifests,
    names,
    standing,
    troubles,
)
from nbmlops.launchers.kubernetes.cluster import Cluster, ClusterRefused
from nbmlops.launchers.kubernetes.couriers import Couriers
from nbmlops.launchers.kubernetes.keeping import Asked, Ending, Kept
from nbmlops.launchers.kubernetes.standing import Scene, Seen
from nbmlops.project import ClusterSettings
from nbmlops.records import JobHandle, JobSpec, JobStatus, Status, replace

Document = dict[str, Any]

# A Job that was just made may have no pod, and one that is just removed may still be listed.
_YOUNG_S = 3.0
_UNTOLD_S = 5.0
_POLL_S = 0.5


class KubernetesLauncher:
    """Runs jobs in a namespace of a cluster."""

    name = "kubernetes"

    def __init__(
        self,
        settings: ClusterSettings,
        owner: str,
        folder: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._folder = folder
        self._environ = os.environ if environ is None else environ
        self.cluster = Cluster(settings, self._environ)
        self._couriers = Couriers(self.cluster, settings, owner)

    def check(self) -> None:
        """Raise when the cluster does not answer, or does not let us."""
        self.cluster.reachable()

    # --- launching --------------------------------------------------------------------------------

    def launch(self, job: JobSpec) -> JobHandle:
        """Start the job, or adopt the one of that name."""
        kept = self._kept(job.name)
        handle = JobHandle(launcher=self.name, name=job.name)
        with kept.only_one():
            asked = kept.asked()
            ended = asked is not None and kept.status(asked.attempt) is not None
            if asked is not None and asked.launched and job.port is None:
                return handle
            if asked is None or ended:
                number = asked.number + 1 if asked else 1
                asked = Asked(
                    spec=job, number=number, marker=parcels.new_marker(), asked_s=time.time()
                )
            asked = replace(asked, spec=job)
            kept.go_on()
            self._send(kept, asked)
        return handle

    def _send(self, kept: Kept, asked: Asked) -> None:
        """Apply the documents of a job; made twice it is as once."""
        job = asked.spec
        inbox, asked = self._packed(asked)
        kept.ask(asked)
        documents = self._documents(job, by_secret=asked.inbox_by_secret)
        first, *others = documents
        owning = self._applied(first)
        if job.port is not None and owning.get("spec", {}).get("replicas") == 0:
            self.cluster.merge("Deployment", first["metadata"]["name"], _replicas(job))
        address: str | None = None
        for document in others:
            made = self.cluster.apply(self._filled(document, owning, asked, inbox))
            if document["kind"] == "Service":
                address = f"tcp:{made['spec']['clusterIP']}:{manifests.PORT}"
        kept.ask(replace(asked, launched=True, address=address))

    def _packed(self, asked: Asked) -> tuple[bytes | None, Asked]:
        """Return the inbox for the Secret, or send it by its other way."""
        job, folder = asked.spec, places.folder_of(asked.spec.inbox)
        place, parts = self._place(job.name), (job.parallel or 0) if job.apart else 0
        if self._settings.url is not None and place is not None:
            depots.send_inbox(folder, place, parts)
            return None, replace(asked, inbox_by_secret=False)
        if self._settings.claim is None:
            return parcels.pack_inbox(folder), asked
        archive = parcels.pack(folder, without=layout.EACH_FOLDER if parts else None)
        fits = len(archive) <= parcels.INBOX_LIMIT_BYTES
        if parts or not fits:
            sent = None if fits else archive
            self._couriers.send_inbox(job.name, str(job.tool_image), sent, folder, parts)
        return (archive, asked) if fits else (None, replace(asked, inbox_by_secret=False))

    def _applied(self, document: Document) -> Document:
        try:
            return self.cluster.apply(document)
        except ClusterRefused as error:
            if error.status != 422:
                raise
            # Another of that name stands, and cannot be changed: it is the same job, adopted.
            selector = names.selector(self._owner, document["metadata"]["labels"][names.JOB])
            found = self.cluster.listed(document["kind"], selector)
            if not found:
                raise
            return found[0]

    def _filled(
        self, document: Document, owning: Document, asked: Asked, inbox: bytes | None
    ) -> Document:
        """Return a document that goes when the job does, with what is secret."""
        made = {**document, "metadata": {**document["metadata"], **_owned_by(owning)}}
        if document["kind"] == "Secret":
            values = {
                manifests.secret_key(name): self._environ[name].encode()
                for name in asked.spec.secrets
                if name in self._environ
            }
            values[manifests.MARKER_KEY] = asked.marker.encode()
            if inbox is not None:
                values[parcels.INBOX_FILE] = inbox
            made["data"] = {key: base64.b64encode(value).decode() for key, value in values.items()}
        return made

    def planned(self, job: JobSpec) -> Sequence[Mapping[str, Any]]:
        """Return the documents that would be applied, without what is secret."""
        return self._documents(job)

    def _documents(self, job: JobSpec, *, by_secret: bool = True) -> tuple[Document, ...]:
        return manifests.manifests(job, self._settings, self._owner, inbox_by_secret=by_secret)

    # --- looking ----------------------------------------------------------------------------------

    def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return how the jobs fare, from one listing."""
        known: dict[JobHandle, JobStatus] = {}
        open_: dict[JobHandle, Asked] = {}
        parts = [handle for handle in handles if handle.index is not None]
        whole = {replace(handle, index=None) for handle in parts}
        for handle in {*whole, *(one for one in handles if one.index is None)}:
            asked = self._kept(handle.name).asked()
            ended = asked and self._kept(handle.name).status(asked.attempt)
            if asked is None:
                known[handle] = places.unknown(handle)
            elif ended:
                known[handle] = self._whole(handle, ended)
            elif not asked.launched:
                known[handle] = JobStatus(status=Status.PENDING)
            else:
                open_[handle] = asked
        scene = Scene(pods={})
        if open_:
            scene = self._scene(tuple(open_.values()))
            for handle, asked in open_.items():
                known[handle] = self._look(handle, asked, scene)
        for handle in parts:
            known[handle] = self._part(handle, known[replace(handle, index=None)], scene)
        return {handle: known[handle] for handle in handles}

    def _part(self, handle: JobHandle, whole: JobStatus, scene: Scene) -> JobStatus:
        """Return how a part of a batch fares, whose whole was looked at just now."""
        ended = self._kept(handle.name).status(str(handle.part))
        if ended is not None:
            return ended
        if whole.status.is_final:  # it ends without having begun
            return replace(whole, attempts=(), ready=0)
        pod = standing.parts_of(scene, handle.name).get(handle.index or 0)
        running = pod is not None and troubles.is_running(pod)
        return JobStatus(
            status=Status.RUNNING if running else Status.PENDING,
            ready=int(running),
            cause=whole.cause if pod is not None and not running else None,
        )

    def _whole(self, handle: JobHandle, ended: JobStatus) -> JobStatus:
        """Return an end with the attempts before it."""
        attempts = self._kept(handle.name).attempts()
        several = len(ended.attempts) > 1
        return ended if several else replace(ended, attempts=attempts or ended.attempts)

    def _scene(self, asked: Sequence[Asked]) -> Scene:
        """List pods; and what has none, by its kind."""
        one = asked[0].spec.name if len(asked) == 1 else None
        selector = names.selector(self._owner, one)
        pods = standing.by_job(self.cluster.listed("Pod", selector))
        now_s = time.time()
        without = [
            each.spec
            for each in asked
            if not pods.get(each.spec.name) and now_s - each.asked_s > _YOUNG_S
        ]
        # A batch has ended when its Job says so, however many of its pods are there.
        runs = [job for job in without if job.port is None] + [
            each.spec for each in asked if each.spec.parallel is not None
        ]
        scene = Scene(pods=pods, complete=frozenset(job.name for job in without))
        if runs:
            scene = dataclasses.replace(scene, jobs=self._by_name("Job", selector))
        if any(job.port is not None for job in without):
            scene = dataclasses.replace(scene, deployments=self._by_name("Deployment", selector))
        if any(job.name in scene.jobs for job in without if job.port is None):
            events = self.cluster.listed("Event", fields="reason=FailedCreate")
            scene = dataclasses.replace(scene, events=tuple(events))
        return scene

    def _by_name(self, kind: str, selector: str) -> dict[str, Document]:
        found = self.cluster.listed(kind, selector)
        return {item["metadata"]["labels"][names.JOB]: item for item in found}

    def _look(self, handle: JobHandle, asked: Asked, scene: Scene) -> JobStatus:
        """Return how one job fares; collect it when it has ended."""
        kept = self._kept(handle.name)
        ending = kept.ending()
        if asked.spec.parallel is not None:
            return self._look_at_batch(handle, asked, scene)
        seen = standing.of(asked, ending, scene, names.object_name(self._owner, handle.name))
        if seen.over or seen.ended_pod is not None:
            return self._collected(handle, asked, seen)
        if ending is not None and seen.again:
            self._remove_again(asked, ending)
        return self._patiently(handle, asked, seen)

    def _patiently(self, handle: JobHandle, asked: Asked, seen: Seen) -> JobStatus:
        """Return how a job fares; one that does not go on for long has failed."""
        kept = self._kept(handle.name)
        trouble = seen.trouble
        stood_s = kept.standing_s(trouble.cause.code if trouble else None, time.time())
        status = replace(
            seen.status, address=asked.address, attempts=(*kept.attempts(), *seen.status.attempts)
        )
        if trouble is None or not (trouble.lasting or stood_s > standing.PATIENCE_S):
            return status
        if asked.spec.port is not None:  # it is whoever deployed it who gives it up
            return replace(status, status=Status.FAILED, cause=trouble.cause, desired=0)
        ending = Ending(kind="cancel", asked_s=time.time(), cause=trouble.cause)
        with kept.only_one():
            if kept.status(asked.attempt) is None and kept.ending() is None:
                kept.end(ending)
        self._remove(asked, ending)
        return status

    def _collected(self, handle: JobHandle, asked: Asked, seen: Seen) -> JobStatus:
        """Fetch what an ended job has left, keep how it ended, and remove it."""
        kept = self._kept(handle.name)
        with kept.only_one():
            ended = kept.status(asked.attempt)
            if ended is None:
                ended = collecting.collected(
                    self.cluster,
                    kept,
                    asked,
                    seen,
                    self._fetch,
                    kept.ending(),
                )
                if ended is None:  # the log cannot be read yet
                    return replace(seen.status, status=Status.RUNNING)
                place = self._place(handle.name)
                if asked.spec.port is not None and place is not None:
                    with contextlib.suppress(NbmlopsError):  # it can be brought later as well
                        self._gather(asked, place)
                kept.keep(asked.attempt, ended)
        ending = kept.ending()
        if ending is None or ending.kind == "cancel":
            self._remove(asked, Ending(kind="cancel", asked_s=time.time()))
        return self._whole(handle, ended)

    def _look_at_batch(self, handle: JobHandle, asked: Asked, scene: Scene) -> JobStatus:
        """Return how a batch fares; each part that has ended is collected by itself."""
        kept = self._kept(handle.name)
        ending = kept.ending()
        parts = kept.parts()
        for index, pod in standing.parts_of(scene, handle.name).items():
            if index in parts or not troubles.has_ended(pod):
                continue
            with kept.only_one():
                part = collecting.part(self.cluster, kept, asked, pod, index, self._fetch, ending)
                if part is not None:
                    kept.keep(f"i{index}", part)
                    parts[index] = part
        seen = standing.of_batch(asked, ending, scene, parts)
        if not seen.over:
            if ending is not None and seen.again:
                self._remove_again(asked, ending)
            return self._patiently(handle, asked, seen)
        with kept.only_one():
            kept.keep(asked.attempt, seen.status)
        self._remove(asked, Ending(kind="cancel", asked_s=time.time()))
        return seen.status

    def gather(self, handle: JobHandle) -> None:
        """Bring what a job with a port has written so far to its outbox.

        It comes by an object store or a claim, a few seconds after it was written; by a Secret and
        the log nothing comes.
        """
        asked = self._kept(handle.name).asked()
        place = self._place(handle.name)
        if asked is None or asked.spec.port is None or place is None:
            return
        with self._kept(handle.name).only_one():
            self._gather(asked, place)

    def _gather(self, asked: Asked, place: str) -> None:
        kept = self._kept(asked.spec.name)
        outbox, came = places.folder_of(asked.spec.outbox), kept.came()
        try:
            if self._settings.url is not None:
                depots.get_files(place, manifests.ATTEMPT, outbox, came)
            else:
                job, image = asked.spec.name, str(asked.spec.tool_image)
                self._couriers.get_files(job, image, manifests.ATTEMPT, outbox, came)
        finally:
            kept.take(came)

    @property
    def _fetch(self) -> collecting.Fetch | None:
        """How outboxes come, where the log does not carry them."""
        by_log = self._settings.url is None and self._settings.claim is None
        return None if by_log else self._fetched

    def _fetched(self, asked: Asked, attempt: str, digest: str | None) -> None:
        job, outbox = asked.spec.name, places.folder_of(asked.spec.outbox)
        if self._settings.url is not None:
            depots.get_outbox(str(self._place(job)), attempt, digest, outbox)
        else:
            self._couriers.get_outbox(job, str(asked.spec.tool_image), attempt, digest, outbox)

    def logs(
        self,
        handle: JobHandle,
        *,
        attempt: str | None = None,
        since_line: int = 0,
        follow: bool = False,
    ) -> Iterator[str]:
        """Yield the log's lines; with ``follow`` until the job has ended."""
        kept = self._kept(handle.name)
        asked = kept.asked()
        if asked is None:
            return
        lines = self._lines(handle, kept, asked, attempt, follow=follow)
        for number, line in enumerate(lines):
            if number >= since_line:
                yield line

    def _lines(
        self, handle: JobHandle, kept: Kept, asked: Asked, attempt: str | None, *, follow: bool
    ) -> Iterator[str]:
        """Yield all lines; a log that is cut off is read again from where it was."""
        chosen = attempt or handle.part or (asked.attempt if asked.spec.parallel is None else "i0")
        told = 0
        while True:
            ended = kept.status(chosen) is not None or kept.status(asked.attempt) is not None
            lines = kept.log(chosen) if ended else None
            if lines is None and not ended:
                lines = self._live_lines(handle, asked, chosen, follow=follow)
            for number, line in enumerate(lines or ()):
                if number >= told:
                    told += 1
                    yield line
            if ended or not follow:
                return
            if self.poll([handle])[handle].status.is_final and kept.status(asked.attempt) is None:
                return  # a service that does not go on
            if kept.status(asked.attempt) is None:
                time.sleep(_POLL_S)

    def _live_lines(
        self, handle: JobHandle, asked: Asked, chosen: str, *, follow: bool
    ) -> Iterator[str]:
        pod = self._begun(handle, asked, chosen)
        if pod is None:
            return
        with contextlib.suppress(ClusterRefused):  # it is gone already
            lines = self.cluster.log(pod, manifests.CONTAINER, follow=follow)
            yield from parcels.shown(lines, asked.marker)

    def _begun(self, handle: JobHandle, asked: Asked, chosen: str) -> str | None:
        """Return the newest pod of an attempt that has a log, if there is one."""
        pods = self.cluster.listed("Pod", names.selector(self._owner, handle.name))
        if asked.spec.parallel is not None:
            pods = [pod for pod in pods if standing.part_name(pod) == chosen]
        begun = [pod for pod in pods if standing.has_begun(pod)]
        return max(begun, key=standing.age)["metadata"]["name"] if begun else None

    # --- ending -----------------------------------------------------------------------------------

    def scale(self, handle: JobHandle, replicas: int) -> None:
        """Stop the job (0) and keep its name, or start it again as it was asked for."""
        kept = self._kept(handle.name)
        asked = kept.asked()
        if asked is None or asked.spec.port is None:
            return
        if replicas == 0:
            self._end(handle, Ending(kind="scale", asked_s=time.time()))
            return
        scaled = replace(asked.spec, replicas=replace(asked.spec.replicas, desired=replicas))
        self.launch(scaled)

    def cancel(self, handle: JobHandle) -> None:
        """End the job and remove it; what it wrote so far is kept."""
        self._end(handle, Ending(kind="cancel", asked_s=time.time()))

    def _end(self, handle: JobHandle, ending: Ending) -> None:
        kept = self._kept(handle.name)
        with kept.only_one():
            asked = kept.asked()
            before = kept.ending()
            ended = asked is None or kept.status(asked.attempt) is not None
            if asked is None or (ended and (before is None or before.kind == "cancel")):
                return
            if ended and ending.kind == "scale":
                return
            if not ended and before is None:
                self._keep_log(handle, kept, asked)
            kept.end(ending)
        self._remove(asked, ending)

    def _keep_log(self, handle: JobHandle, kept: Kept, asked: Asked) -> None:
        """Keep what a job wrote before it is told to end: its pod takes its log along."""
        if asked.spec.parallel is None:
            pod = self._begun(handle, asked, asked.attempt)
            if pod is not None:
                with contextlib.suppress(ClusterRefused):
                    lines = self.cluster.log(pod, manifests.CONTAINER)
                    kept.write_log(asked.attempt, parcels.shown(lines, asked.marker))

    def _remove_again(self, asked: Asked, ending: Ending) -> None:
        """Tell a job to end that was not told: whoever wanted to was killed in between."""
        if abs(time.time() - ending.asked_s) > _UNTOLD_S:
            self._remove(asked, ending)

    def _remove(self, asked: Asked, ending: Ending) -> None:
        name = names.object_name(self._owner, asked.spec.name)
        if asked.spec.port is None:
            self.cluster.delete("Job", name)
            self._forget(asked)
        elif ending.kind == "cancel":
            self.cluster.delete("Deployment", name)
        else:
            with contextlib.suppress(ClusterRefused):  # it is gone
                self.cluster.merge("Deployment", name, {"spec": {"replicas": 0}})

    def _forget(self, asked: Asked) -> None:
        """Remove the parcels of a run whose end is kept; of one that is lost they may be wanted."""
        job = asked.spec.name
        ended = self._kept(job).status(asked.attempt)
        if ended is None or ended.status is Status.LOST:
            return
        if self._settings.url is not None:
            depots.remove(str(self._place(job)))
        elif self._settings.claim is not None:
            self._couriers.remove(job)

    # --- what stands ------------------------------------------------------------------------------

    def jobs(self) -> Sequence[JobHandle]:
        """Return all jobs of this owner that stand in the cluster and have not ended."""
        selector = names.selector(self._owner)
        up = [
            item
            for kind in ("Job", "Deployment")
            for item in self.cluster.listed(kind, selector)
            if standing.is_up(item) and item["metadata"]["labels"][names.JOB] != manifests.COURIER
        ]
        found = sorted(item["metadata"]["labels"][names.JOB] for item in up)
        return [JobHandle(launcher=self.name, name=name) for name in found]

    def ending(self, handle: JobHandle) -> str:
        """Return what a person types to end a job that no record wants."""
        name = names.object_name(self._owner, handle.name)
        where = f" -n {self._settings.namespace}" if self._settings.namespace else ""
        return f"kubectl delete job,deployment {name}{where} --ignore-not-found"

    @contextlib.contextmanager
    def reach(self, handle: JobHandle) -> Generator[str, None, None]:
        """Yield a port of this machine that is forwarded to the job's pod."""
        pods = self.cluster.listed("Pod", names.selector(self._owner, handle.name))
        up = [pod for pod in pods if troubles.is_running(pod)]
        if not up:
            yield ""
            return

        def opened() -> Any:
            chosen = max(up, key=lambda pod: (troubles.is_ready(pod), standing.age(pod)))
            name = chosen["metadata"]["name"]
            return forwarding.opened(self.cluster.connection, name, manifests.PORT)

        with forwarding.forwarded(opened) as address:
            yield address

    def live(self, handle: JobHandle) -> Sequence[Mapping[str, Any]]:
        """Return what stands of a job, as far as it was asked for.

        Nobody may read its Secret; it is told as it was asked for, as long as the job stands.
        """
        asked = self._kept(handle.name).asked()
        if asked is None:
            return []
        selector = names.selector(self._owner, handle.name)
        planned = self._documents(asked.spec, by_secret=asked.inbox_by_secret)
        kinds = dict.fromkeys(document["kind"] for document in planned)
        found = {
            kind: [standing.owned(item, kind) for item in self.cluster.listed(kind, selector)]
            for kind in kinds
            if kind != "Secret"
        }
        first = planned[0]["kind"]
        if not found[first]:
            return []
        found["Secret"] = [document for document in planned if document["kind"] == "Secret"]
        return [item for kind in kinds for item in found[kind]]

    # ----------------------------------------------------------------------------------------------

    def _kept(self, job: str) -> Kept:
        return Kept(self._folder / layout.checked_job(job))

    def _place(self, job: str) -> str | None:
        return manifests.place_of(job, self._settings, self._owner)


def _replicas(job: JobSpec) -> Document:
    return {"spec": {"replicas": max(1, job.replicas.desired)}}


def _owned_by(owning: Document) -> Document:
    about = owning["metadata"]
    reference = {
        "apiVersion": owning["apiVersion"],
        "kind": owning["kind"],
        "name": about["name"],
        "uid": about["uid"],
    }
    return {"ownerReferences": [reference]}
