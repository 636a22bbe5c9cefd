"""Everybody at once: attaches and detaches by the thousand, and what is left when it is over."""

import collections
import itertools
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402
from storm import figures, storm  # noqa: E402
from volumes import Volumes  # noqa: E402

MANY = 2000
SETTLE_SECONDS = 120


def attach_to(volume_id):
    return ("POST", "/attachments",
            {"attachment": {"volume_uuid": volume_id, "connector": {"host": "here"}}})


def make_volumes(volumes, count):
    volumes.lift_quotas()
    answers = storm(volumes, [("POST", "/volumes", {"volume": {"size": 1}})] * count)
    print(figures("create", answers))
    assert {answer.status for answer in answers} == {202}
    settle(volumes, lambda volume: volume["status"] == "available")
    return [answer.json()["volume"]["id"] for answer in answers]


def settle(volumes, good):
    """Waits until every volume is as it shall be; all of them."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        there = volumes.list("volumes/detail")
        bad = [volume for volume in there if not good(volume)]
        if not bad:
            return there
        assert time.monotonic() < deadline, (len(bad), bad[:3])
        time.sleep(0.1)


@pytest.fixture(name="service", scope="module")
def make_service():
    with quarry.Service(options=["--log.level=warn"]) as running:
        yield running


@pytest.fixture(name="ids", scope="module")
def make_ids(volumes):
    return make_volumes(volumes, MANY)


def test_attaches_and_detaches_at_once(volumes, ids):
    answers = storm(volumes, [attach_to(volume) for volume in ids])
    print(figures("attach", answers))
    assert {answer.status for answer in answers} == {200}
    made = [answer.json()["attachment"] for answer in answers]
    assert len({attachment["connection_info"]["export"] for attachment in made}) == MANY

    answers = storm(volumes, [("POST", f"/attachments/{attachment['id']}/action",
                               {"os-complete": {}}) for attachment in made])
    print(figures("complete", answers))
    assert {answer.status for answer in answers} == {204}
    there = settle(volumes, lambda volume: volume["status"] == "in-use")
    assert {volume["id"] for volume in there} == set(ids)
    listed = volumes.list("attachments")
    assert {item["id"] for item in listed} == {attachment["id"] for attachment in made}
    assert collections.Counter(item["volume_id"] for item in listed) == \
        collections.Counter(ids)

    answers = storm(volumes, [("DELETE", f"/attachments/{item['id']}", None) for item in listed])
    print(figures("detach", answers))
    assert {answer.status for answer in answers} == {200}
    settle(volumes, lambda volume: volume["status"] == "available")
    assert volumes.list("attachments") == []


def test_two_thousand_want_the_same_volume(volumes, ids):
    answers = storm(volumes, [attach_to(ids[0])] * MANY)
    print(figures("attach one", answers))
    statuses = collections.Counter(answer.status for answer in answers)
    assert statuses == {200: 1, 400: MANY - 1}
    listed = volumes.list("attachments")
    assert [item["volume_id"] for item in listed] == [ids[0]]
    volumes.detach(listed[0]["id"])
    volumes.wait("volume", ids[0], "available")


def test_a_kill_in_the_storm_leaves_no_half(service, volumes, ids):
    """Half of the volumes are being attached, the other half detached, when the service dies."""
    first, second = ids[:MANY // 2], ids[MANY // 2:]
    before = [answer.json()["attachment"]
              for answer in storm(volumes, [attach_to(volume) for volume in first])]
    storm(volumes, [("POST", f"/attachments/{attachment['id']}/action", {"os-complete": {}})
                    for attachment in before])
    requests = [("DELETE", f"/attachments/{attachment['id']}", None) for attachment in before]
    requests += [attach_to(volume) for volume in second]
    requests = [request for pair in zip(requests[:MANY // 2], requests[MANY // 2:])
                for request in pair]
    count = itertools.count(1)

    def kill_in_the_middle(_):
        if next(count) == MANY // 3:
            service.process.kill()
    answers = storm(volumes, requests, kill_in_the_middle)
    service.process.wait()
    assert any(isinstance(answer, OSError) for answer in answers)

    service.start()
    volumes = Volumes(service)
    there = settle(volumes, lambda volume: volume["status"] in ("available", "attaching", "in-use"))
    status = {volume["id"]: volume["status"] for volume in there}
    listed = volumes.list("attachments")
    attached = collections.Counter(item["volume_id"] for item in listed)
    assert attached == {volume: 1 for volume, at in status.items() if at != "available"}
    # What was answered has happened; what was not may have.
    known = {item["id"] for item in listed}
    for (method, path, _), answer in zip(requests, answers):
        if isinstance(answer, OSError):
            continue
        if method == "DELETE":
            assert path.rpartition("/")[2] not in known
        else:
            assert answer.json()["attachment"]["id"] in known
    storm(volumes, [("DELETE", f"/attachments/{item}", None) for item in known])
    settle(volumes, lambda volume: volume["status"] == "available")
    assert volumes.list("attachments") == []
