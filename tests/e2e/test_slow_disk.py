"""The volumes' disk stalls for 30 seconds behind HAProxy, whose patience ends after 50: what
clients ask for is answered meanwhile, and done afterwards. Records lie on another disk."""

import collections
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402
import slow_disk  # noqa: E402
from storm import figures, storm  # noqa: E402
from volumes import Volumes  # noqa: E402

STALL_SECONDS = 30
SEEN = collections.defaultdict(list)  # all answers, by what was asked for
AT_ONCE = 20
SETTLE_SECONDS = 120

CONFIG = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 50s
  timeout server 50s
frontend api
  bind fd@{listener}
  default_backend quarry
backend quarry
  option httpchk GET /healthz
  server one {address} check inter 1s fastinter 500ms downinter 1s rise 1 fall 3
"""


class HaProxy:
    """In front of a service, on a free port."""

    def __init__(self, folder, service):
        self.config = os.path.join(folder, "haproxy.cfg")
        self.address = service.base.removeprefix("http://")

    def __enter__(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1000)
            listener.set_inheritable(True)
            self.base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with open(self.config, "w", encoding="utf-8") as config:
                config.write(CONFIG.format(listener=listener.fileno(), address=self.address))
            self.process = subprocess.Popen(["haproxy", "-db", "-f", self.config],
                                            pass_fds=[listener.fileno()])
        assert quarry.call("GET", self.base + "/healthz").status == 200
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(name="rig")
def make_rig(tmp_path):
    """A disk, a service whose volumes and images are on it, and HAProxy before it."""
    if shutil.which("haproxy") is None:
        pytest.fail("install haproxy; ./dev test does")
    data = tmp_path / "data"
    with slow_disk.start_or_skip(tmp_path / "disk") as disk:
        for folder in ("layers", "blobs"):
            disk.take_over(str(data / folder))
        with quarry.Service(str(data), ["--log.level=warn"]) as service:
            try:
                with HaProxy(str(tmp_path), service) as proxy:
                    yield disk, Volumes(service, base=proxy.base)
            finally:
                disk.go_on()  # a service can't stop while its disk does not answer


def connect(volume_id):
    return ("POST", "/attachments",
            {"attachment": {"volume_uuid": volume_id, "connector": {"host": "here"}}})


def ids_of(answers):
    return [answer.json()["attachment"]["id"] for answer in answers]


def check(name, answers, status):
    SEEN[name] += answers
    assert collections.Counter(answer.status for answer in answers) == {status: len(answers)}


def complete(volumes, attachments):
    check("complete", storm(volumes, [("POST", f"/attachments/{attachment}/action",
                                       {"os-complete": {}}) for attachment in attachments]), 204)


def test_nobody_waits_for_a_disk_that_stalls(rig, tmp_path):
    disk, volumes = rig
    volumes.lift_quotas()
    groups = [[volumes.create() for _ in range(AT_ONCE)] for _ in range(3)]
    free, used, spare = groups
    answers = storm(volumes, [connect(volume) for volume in used])
    busy = ids_of(answers)
    complete(volumes, busy)
    # Clients in the middle of writes, half of them with a flush after each.
    writers = [write_on(answer.json()["attachment"]["connection_info"]["uri"], tmp_path, number)
               for number, answer in enumerate(answers[:4])]
    for volume in used[:len(writers)]:
        volumes.wait_for_writes(volume)
    stalled = time.monotonic()
    disk.stall()
    try:
        created = storm(volumes, [("POST", "/volumes", {"volume": {"size": 1}})] * AT_ONCE)
        check("create", created, 202)
        new = [answer.json()["volume"]["id"] for answer in created]
        attached = storm(volumes, [connect(volume) for volume in free])
        check("attach", attached, 200)
        complete(volumes, ids_of(attached))
        check("snapshot", storm(volumes, [("POST", "/snapshots", {"snapshot": {
            "volume_id": volume, "force": True}}) for volume in free[:4]]), 202)
        check("detach", storm(volumes, [("DELETE", f"/attachments/{attachment}", None)
                                        for attachment in busy]), 200)
        check("delete", storm(volumes, [("DELETE", f"/volumes/{volume}", None)
                                        for volume in spare]), 202)
        status = {volume["id"]: volume["status"] for volume in volumes.list("volumes/detail")}
        assert {status[volume] for volume in free} == {"in-use"}
        # Some found a place that had been made ready for them.
        assert [status[volume] for volume in new].count("creating") > AT_ONCE // 2, "no slow disk"
        rounds = attach_over_and_over(volumes, free, ids_of(attached), stalled + STALL_SECONDS)
        assert rounds > 0
        for name, answers in SEEN.items():
            print(figures(name, answers))
    finally:
        disk.go_on()
    for writer in writers:
        writer.wait(SETTLE_SECONDS)
    check_all_is_done(volumes, free, used + new, spare)


def write_on(uri, folder, number):
    flush = ["--fsync=1"] if number % 2 else []
    return subprocess.Popen(
        ["fio", f"--name=writer{number}", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite",
         "--bs=64k", "--iodepth=4", "--size=256m", "--time_based", "--runtime=600", *flush],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)


def attach_over_and_over(volumes, ids, attachments, until):
    """Detaches and attaches while the disk stalls, for as long as it does."""
    rounds = 0
    while time.monotonic() < until:
        check("detach", storm(volumes, [("DELETE", f"/attachments/{attachment}", None)
                                        for attachment in attachments]), 200)
        for volume in ids:
            volumes.wait("volume", volume, "available")
        answers = storm(volumes, [connect(volume) for volume in ids])
        check("attach", answers, 200)
        attachments = ids_of(answers)
        complete(volumes, attachments)
        rounds += 1
    return rounds


def check_all_is_done(volumes, attached, available, gone):
    want = {**{volume: "in-use" for volume in attached},
            **{volume: "available" for volume in available}}
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        there = {volume["id"]: volume["status"] for volume in volumes.list("volumes/detail")}
        if there == want:
            break
        assert time.monotonic() < deadline, {volume: there.get(volume) for volume in want
                                             if there.get(volume) != want[volume]}
        time.sleep(0.1)
    assert not set(gone) & set(there)
    assert sorted(item["volume_id"] for item in volumes.list("attachments")) == sorted(attached)
    for snapshot in volumes.list("snapshots"):
        volumes.wait("snapshot", snapshot["id"], "available")
