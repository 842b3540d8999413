"""Alerts in the store: neither lost nor told anew, whoever is killed when and whatever is down."""

import json
import os
import signal
from datetime import timedelta

import hooks
import pytest
from test_advancing import NO, NOON, report

from nbmlops import alerts, tick
from nbmlops.alerts import keeping, telling, webhooks
from nbmlops.errors import Conflict, InvalidSettings
from nbmlops.project import AlertSettings, read
from nbmlops.records import (
    Alert,
    Answer,
    Coincidence,
    Explanation,
    Suspect,
    replace,
)
from nbmlops.store import Store

BAD = [report(n, features=NO) for n in (1, 2)]
GOOD = [report(n) for n in (3, 4)]


class Machine:
    """A project whose clock and variables the test sets, and what it says."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.at = NOON
        self.said = []
        workspace.now = lambda: self.at
        workspace.warn = self.said.append
        workspace.environ = dict(workspace.environ)

    def settings(self, **options):
        monitoring = replace(self.workspace.settings.monitoring, alerts=AlertSettings(**options))
        self.workspace.settings = replace(self.workspace.settings, monitoring=monitoring)

    def allow(self, text):
        self.workspace.environ["NBMLOPS_WEBHOOK_HOSTS"] = text

    def take(self, *reports):
        return [one for item in reports for one in alerts.take(self.workspace, "churn", item)]

    def later(self, **time):
        self.at += timedelta(**time)
        alerts.deliver(self.workspace)

    @property
    def lines(self):
        path = self.workspace.home.alerts
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def delivery(self, sink=-1):
        return alerts.listed(self.workspace, "churn")[0].deliveries[sink]


@pytest.fixture
def machine(workspace):
    return Machine(workspace)


@pytest.fixture
def hook(machine):
    with hooks.listening() as made:
        machine.settings(webhooks=(f"http://127.0.0.1:{made.port}/T0/s3cr3t",))
        machine.allow(f"127.0.0.1:{made.port}")
        yield made


# --- told -----------------------------------------------------------------------------------------


def test_an_alert_is_in_the_store_in_the_log_said_and_sent(machine, hook):
    assert machine.take(BAD[0]) == []
    (raised,) = machine.take(BAD[1])
    assert (raised.event, raised.endpoint, raised.status) == ("raised", "churn", "told")
    assert alerts.listed(machine.workspace) == [raised]
    assert alerts.state_of(machine.workspace, "churn").alert_id == raised.alert_id
    assert [one["event_id"] for one in machine.lines] == [raised.event_id] == hook.keys
    assert machine.said == [f"alert: {telling.sentence(raised)}"]
    assert "churn (churn:3) is no longer as in training: features" in machine.said[0]
    (body,) = hook.bodies
    assert body["text"] == telling.sentence(raised)
    assert {*body} == {"text", *machine.lines[0]}
    assert body["commit"] == "c" * 40
    assert body["questions"] == [
        {"question": "features", "answer": "no", "reason": "features of 2."}
    ]
    (over,) = machine.take(*GOOD)
    assert over.event == "recovered"
    assert [one["event"] for one in hook.bodies] == ["raised", "recovered"]
    assert len({one["alert_id"] for one in hook.bodies}) == 1
    assert alerts.state_of(machine.workspace, "churn").alert_id is None


def test_a_report_that_was_taken_is_not_taken_again(machine, hook):
    machine.take(*BAD, *BAD, BAD[1])
    assert len(machine.lines) == len(hook.asked) == 1
    assert len(alerts.listed(machine.workspace)) == 1


def test_without_settings_only_this_machine_is_told(machine):
    (raised,) = machine.take(*BAD)
    assert [one.sink for one in raised.deliveries] == ["log"]
    assert len(machine.lines) == 1


def test_without_any_sink_an_alert_is_still_recorded(machine):
    machine.settings(log=False)
    (raised,) = machine.take(*BAD)
    assert (raised.status, raised.deliveries) == ("told", ())
    assert (machine.lines, machine.said) == ([], [])


def test_the_log_is_its_user_s_alone(machine):
    machine.take(*BAD)
    assert machine.workspace.home.alerts.stat().st_mode & 0o777 == 0o600


def test_endpoints_have_alerts_of_their_own(machine):
    for name in ("churn", "price"):
        for one in BAD:
            alerts.take(machine.workspace, name, one)
    found = alerts.listed(machine.workspace)
    assert {one.endpoint for one in found} == {"churn", "price"}
    assert len({one.event_id for one in found}) == 2
    assert [one.endpoint for one in alerts.listed(machine.workspace, "price")] == ["price"]


# --- secrets --------------------------------------------------------------------------------------


def test_a_url_is_in_no_record_no_log_and_no_word(machine, hook):
    url = f"http://127.0.0.1:{hook.port}/hidden/t0ken?key=pa55"
    machine.settings(webhooks=(f"http://127.0.0.1:{hook.port}/pl4in",), webhook_secrets=("HOOK",))
    machine.workspace.environ["HOOK"] = url
    hook.answers = [500, 500]
    machine.take(*BAD)
    machine.later(hours=1)
    machine.take(*GOOD)
    assert {path for path, _, _ in hook.asked} == {"/hidden/t0ken?key=pa55", "/pl4in"}
    machine.workspace.close()
    kept = b"".join(
        path.read_bytes() for path in machine.workspace.home.root.rglob("*") if path.is_file()
    )
    assert b"$HOOK" in kept
    for word in ("t0ken", "pa55", "pl4in"):
        assert word.encode() not in kept
        assert word not in " ".join(machine.said)
        assert all(word.encode() not in body for _, _, body in hook.asked)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not set"),
        ("", "not set"),
        ("postgresql://ada:w0rd@db/x", "not a URL"),
        ("https://other.example/w0rd", "NBMLOPS_WEBHOOK_HOSTS"),
        ("http://127.0.0.1:1/w0rd\r\nX: y", "not a URL"),
    ],
)
def test_a_variable_that_holds_no_url_of_ours_is_told_without_its_value(machine, value, said):
    machine.settings(webhook_secrets=("HOOK",))
    if value is not None:
        machine.workspace.environ["HOOK"] = value
    machine.take(*BAD)
    found = machine.delivery()
    assert (found.sink, found.attempts) == ("$HOOK", 1)
    assert said in found.error
    assert "w0rd" not in found.error + " ".join(machine.said)


def test_what_is_sent_is_bounded_and_has_no_evidence(machine, hook):
    long, many = "\x01" * 5_000, 500
    explanation = Explanation(
        since=NOON,
        suspects=tuple(Suspect(column=long, share=0.1, change="shift") for _ in range(many)),
        coincidences=tuple(Coincidence(kind="client", at=NOON, message=long) for _ in range(many)),
    )
    features = Answer(answer=NO, reason=long, evidence={"new_categories": ["Ada Lovelace"]})
    wide = replace(
        BAD[1],
        explanation=explanation,
        questions=replace(
            BAD[1].questions,
            **dict.fromkeys(("features", "predictions", "bounds", "performance"), features),
        ),
    )
    machine.settings(after=1, webhooks=(f"http://127.0.0.1:{hook.port}/",))
    machine.take(wide)
    ((_, _, body),) = hook.asked
    assert len(body) < 64 * 1024
    assert b"Ada" not in body


def test_a_chat_shows_names_as_they_are(machine, hook):
    machine.settings(after=1, webhooks=(f"http://127.0.0.1:{hook.port}/",))
    odd = replace(BAD[0].questions, features=Answer(answer=NO, reason="<!channel> & co differ."))
    machine.take(replace(BAD[0], questions=odd))
    assert "&lt;!channel&gt; &amp; co" in hook.bodies[0]["text"]


# --- whoever is down ------------------------------------------------------------------------------


def test_a_webhook_that_is_down_is_told_later_with_the_same_key(machine, hook):
    hook.answers = [500, 503]
    (raised,) = machine.take(*BAD)
    assert raised.status == "pending"
    assert machine.delivery().error == "it answered 500"
    assert machine.delivery().next_at == NOON + timedelta(minutes=1)
    assert len(machine.lines) == 1
    machine.later(seconds=59)
    assert len(hook.asked) == 1
    machine.later(seconds=1)
    assert machine.delivery().error == "it answered 503"
    machine.later(minutes=2)
    assert machine.delivery().delivered_at == machine.at
    assert (machine.delivery().error, machine.delivery().attempts) == (None, 3)
    assert hook.keys == [raised.event_id] * 3
    machine.later(days=9)
    assert len(hook.asked) == 3


def test_a_tick_tells_what_is_due(machine, hook):
    hook.answers = [500]
    machine.take(*BAD)
    machine.at += timedelta(minutes=1)
    assert tick.tick(machine.workspace).ours
    assert machine.delivery().delivered_at is not None


def test_a_look_without_news_tells_what_is_due(machine, hook):
    hook.answers = [500]
    machine.take(*BAD)
    machine.at += timedelta(minutes=1)
    assert machine.take(BAD[1]) == []
    assert len(hook.asked) == 2


def test_a_webhook_that_stays_down_is_given_up_and_told_so(machine, hook):
    hook.answers = [500] * 99
    machine.take(*BAD)
    for _ in range(20):
        machine.later(hours=1)
    assert len(hook.asked) == keeping.MAX_ATTEMPTS == machine.delivery().attempts
    assert machine.delivery().given_up
    assert machine.delivery().error == "it answered 500"
    assert alerts.listed(machine.workspace)[0].status == "failed"
    told = [line for line in machine.said if "webhook" in line]
    assert [("tried again" in line, "given up" in line) for line in told] == [
        (True, False),
        (False, True),
    ]


def test_each_is_told_in_order_and_nobody_waits_for_another(machine):
    with hooks.listening() as down, hooks.listening() as up:
        machine.settings(webhooks=tuple(f"http://127.0.0.1:{h.port}/" for h in (down, up)))
        machine.allow(f"127.0.0.1:{down.port},127.0.0.1:{up.port}")
        down.answers = [500]
        machine.take(*BAD, *GOOD)
        assert [one["event"] for one in up.bodies] == ["raised", "recovered"]
        assert [one["event"] for one in down.bodies] == ["raised"]
        machine.later(minutes=1)
        assert [one["event"] for one in down.bodies] == ["raised", "raised", "recovered"]


def test_a_webhook_that_is_no_longer_named_is_told_no_more(machine, hook):
    hook.answers = [500]
    machine.take(*BAD)
    machine.settings()
    machine.later(hours=1)
    assert len(hook.asked) == 1
    assert machine.delivery().given_up
    assert "no longer names" in machine.delivery().error


def test_a_host_that_is_allowed_later_is_told_later(machine, hook):
    machine.allow("")
    machine.take(*BAD)
    assert "NBMLOPS_WEBHOOK_HOSTS" in machine.delivery().error
    assert "NBMLOPS_WEBHOOK_HOSTS" in " ".join(machine.said)
    machine.allow(f"127.0.0.1:{hook.port}")
    machine.later(minutes=1)
    assert len(hook.asked) == 1


def test_a_clock_that_was_ahead_holds_no_delivery_back_for_long(machine, hook):
    hook.answers = [500]
    machine.at = NOON + timedelta(days=400)
    machine.take(*BAD)
    machine.at = NOON
    machine.later(minutes=1)
    assert machine.delivery().delivered_at == NOON + timedelta(minutes=1)


def test_after_a_while_no_further_delivery_is_begun(machine, hook):
    alerts.take(machine.workspace, "churn", BAD[0])
    keeping._counted(machine.workspace, "churn", BAD[1])
    alerts.deliver(machine.workspace, limit_s=-1.0)
    assert hook.asked == []
    assert len(machine.lines) == 1
    alerts.deliver(machine.workspace)
    assert len(hook.asked) == 1


def test_a_log_that_cannot_be_written_loses_no_alert(machine, hook, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "_append", full)
        machine.take(*BAD)
    assert len(hook.asked) == 1
    assert machine.delivery(0).error == "No space left on device"
    assert "cannot be written" in machine.said[0]
    alerts.deliver(machine.workspace)
    assert len(machine.lines) == 1
    assert alerts.listed(machine.workspace)[0].status == "told"


def test_alerts_of_another_clone_are_its_own_to_tell(machine, hook):
    hook.answers = [500]
    machine.take(*BAD)
    kept = machine.workspace.store.page(keeping.KIND, Alert)[0]
    other = replace(kept.record, place="e" * 32)
    machine.workspace.store.swap(
        keeping.KIND, other.event_id, other, expected=kept.revision, key="o", status="pending"
    )
    machine.later(hours=1)
    assert len(hook.asked) == 1


def test_whoever_counts_at_the_same_time_counts_after(machine, monkeypatch):
    original, met = Store.swap, []

    def swap(store, kind, *arguments, **options):
        if kind == keeping.STATES and not met:
            met.append(kind)
            monkeypatch.setattr(Store, "swap", original)
            alerts.take(machine.workspace, "churn", BAD[0])
            with pytest.raises(Conflict):
                original(store, kind, *arguments, **options)
            raise Conflict("", "")
        return original(store, kind, *arguments, **options)

    monkeypatch.setattr(Store, "swap", swap)
    (raised,) = machine.take(BAD[1])
    assert raised.event == "raised"
    assert len(machine.lines) == 1


# --- killed between any two steps -----------------------------------------------------------------

POINTS = {
    "counted": (Store, "swap", keeping.STATES, 0),
    "recorded": (Store, "swap", keeping.KIND, 0),
    "filed": (Store, "swap", keeping.STATES, 1),
    "logged": (keeping, "_append", None, 0),
    "log marked": (Store, "swap", keeping.KIND, 1),
    "sent": (webhooks, "post", None, 0),
    "all marked": (Store, "swap", keeping.KIND, 2),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_no_alert_and_makes_no_second_one(machine, hook, point, after):
    machine.take(BAD[0])
    machine.workspace.close()
    machine.workspace._store = None
    pid = os.fork()
    if pid == 0:
        _dying(*POINTS[point], after=after)
        machine.take(BAD[1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    # Somebody looks again: at the same window where it was not counted, else at the next.
    machine.at += timedelta(minutes=2)
    again = replace(BAD[1], created_at=machine.at)
    machine.take(again)
    machine.take(replace(report(3, features=NO), created_at=machine.at))
    (raised,) = alerts.listed(machine.workspace)
    assert (raised.event, raised.status) == ("raised", "told")
    assert [one["event_id"] for one in machine.lines] == [raised.event_id]
    assert {*hook.keys} == {raised.event_id}
    # Told twice only where it was killed after it was told, and before that was kept.
    assert len(hook.asked) <= 1 + ((point, after) in {("sent", True), ("all marked", False)})
    state = alerts.state_of(machine.workspace, "churn")
    assert (state.alert_id, state.waiting) == (raised.alert_id, ())
    assert machine.workspace.store.faults() == []


def _dying(owner, name, kind, count, *, after):
    original, left = getattr(owner, name), [count]

    def replaced(*arguments, **options):
        mine = kind is None or arguments[1] == kind
        last = mine and left[0] == 0
        left[0] -= mine
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, replaced)


def test_half_a_line_of_the_log_is_ended_and_the_alert_written_whole(machine):
    machine.take(*BAD)
    path = machine.workspace.home.alerts
    line = path.read_bytes()
    for torn in (line[:40], b'{"event":"raised","event_id":"' + b"x" * 40):
        path.write_bytes(torn)
        (alert,) = alerts.listed(machine.workspace)
        keeping._append(machine.workspace, alert)
        assert path.read_bytes() == torn + b"\n" + line
    keeping._append(machine.workspace, alert)
    assert path.read_bytes() == torn + b"\n" + line
    path.write_bytes(line[:-1])  # whole, but for its end
    keeping._append(machine.workspace, alert)
    assert path.read_bytes().splitlines(keepends=True)[-1] == line


# --- settings -------------------------------------------------------------------------------------


def settings(folder, text):
    (folder / "nbmlops.toml").write_text(f"[project]\nname='x'\n[monitoring.alerts]\n{text}\n")
    return read(folder).monitoring.alerts


def test_settings_are_read_with_their_defaults(tmp_path):
    found = settings(tmp_path, "questions = ['bounds']\nrepeat = 'never'")
    assert (found.after, found.recover, found.log, found.repeated_after) == (2, 2, True, None)
    assert settings(tmp_path, "").repeated_after == timedelta(hours=24)
    assert settings(tmp_path, "webhooks=['http://[::1]:80/','https://a.example:1']").webhooks


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("after = 0", "after = 0"),
        ("recover = -1", "recover = -1"),
        ("repeat = '1 day'", "no length of time"),
        ("questions = ['feature']", "Invalid enum value 'feature'"),
        ("webhook = []", "unknown key `webhook`"),
        ("webhooks = ['hooks.example.com']", "URL `hooks.example.com`"),
        ("webhooks = ['ftp://a.example/']", "cannot be one"),
        ("webhooks = ['https://ada:w0rd@a.example/']", "user in it"),
        ("webhook_secrets = ['https://a.example/w0rd']", "not the name of an environment"),
        (f"webhooks = {['https://a.example/'] * 11}", "more than 10"),
        ("log = 'yes'", "Expected `bool`"),
    ],
)
def test_wrong_settings_are_refused_and_show_no_secret(tmp_path, wrong, said):
    with pytest.raises(InvalidSettings, match=said) as caught:
        settings(tmp_path, wrong)
    assert caught.value.hint
    assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "https://169.254.169.254/"]
)
def test_no_setting_of_a_repository_allows_a_host(machine, hook, url):
    """Whoever clones a project decides where its machine speaks to; the project does not."""
    machine.workspace.environ.pop("NBMLOPS_WEBHOOK_HOSTS")
    machine.settings(webhooks=(url.format(port=hook.port),))
    machine.take(*BAD)
    assert hook.asked == []
    assert "NBMLOPS_WEBHOOK_HOSTS" in machine.delivery().error
