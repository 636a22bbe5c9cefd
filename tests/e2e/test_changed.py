"""What changed between images and snapshots: the routes, `quarry diff`, a backup by them."""

import json
import subprocess

import pytest

from nbd_tools import need, qemu_io
from service import QUARRY, USER_PASSWORD, Images, Service, call
from volumes import Volumes

CHUNK = 4 << 20


@pytest.fixture(name="service", scope="module")
def running():
    with Service(options=["--store.gc-interval=0s"]) as service:
        yield service
        assert service.stop() == 0


def diff(service, old, new):
    done = service.quarry("diff", old, new, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(old, new):
    """By comparing bytes: the changed blocks of `new`, adjacent ones together."""
    runs = []
    for at in range(0, len(new), CHUNK):
        block = new[at:at + CHUNK]
        if block == old[at:at + CHUNK].ljust(len(block), b"\0"):
            continue
        zero = not any(block)
        last = runs[-1] if runs else None
        if last and last["offset"] + last["length"] == at and last["zero"] == zero:
            last["length"] += len(block)
        else:
            runs.append({"offset": at, "length": len(block), "zero": zero})
    return runs


def disk(chunks):
    """What a list of letters stands for, a chunk each; a blank is zeros."""
    return b"".join(bytes(CHUNK) if c == " " else c.encode() * CHUNK for c in chunks)


def test_an_incremental_backup_by_what_diff_says(service, images):
    old = disk("ab  cdefg") + b"the end"
    new = disk("ab  xx  gh") + b"the end"
    images.make(old, "backup-old")
    new_id = images.make(new, "backup-new")
    runs = diff(service, "backup-old", "backup-new")
    assert runs == expected(old, new)
    copy = bytearray(old[:len(new)].ljust(len(new), b"\0"))
    for run in runs:
        begin, end = run["offset"], run["offset"] + run["length"]
        part = bytes(run["length"])
        if not run["zero"]:
            reply = images.call("GET", f"/{new_id}/file",
                                headers={"Range": f"bytes={begin}-{end - 1}"})
            assert reply.status == 206
            part = reply.body
        copy[begin:end] = part
    assert bytes(copy) == new
    # The way back, and nothing.
    assert diff(service, new_id, "backup-old") == expected(new, old)
    assert diff(service, new_id, new_id) == []


def test_a_person_reads_sums_and_a_short_table(service, images):
    images.make(disk("abc "), "plain-old")
    images.make(disk("xb d"), "plain-new")
    images.make(disk("b " * 30), "plain-many")
    done = service.quarry("diff", "plain-old", "plain-new")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [["OFFSET", "LENGTH", "NOW"], ["0", str(CHUNK), "data"],
                     [str(2 * CHUNK), str(CHUNK), "zeros"], [str(3 * CHUNK), str(CHUNK), "data"],
                     "12.0 MiB changed in 3 runs, 4.0 MiB of it to zeros".split()]
    many = service.quarry("diff", "plain-new", "plain-many").stdout
    assert "more: --json lists all" in many and len(many.splitlines()) < 30
    same = service.quarry("diff", "plain-old", "plain-old")
    assert (same.returncode, same.stdout) == (0, "nothing changed\n")
    assert "for example: quarry diff" in service.quarry("diff", "--help").stdout


def test_names_that_say_nothing_or_too_much(service, images, volumes):
    images.make(disk("a"), "twice")
    images.make(disk("b"), "twice")
    images.make(disk("a"), "once")
    volume = volumes.create()
    volumes.snapshot(volume, name="once")
    for words, why in ((("twice", "once"), "name one by its id"),
                       (("once", "once"), "an image and a snapshot are named 'once'"),
                       (("nowhere", "once"), "no image and no snapshot"),
                       (("once",), "something is missing")):
        done = service.quarry("diff", *words)
        assert done.returncode in (1, 2) and why in done.stderr, done.stderr
        assert done.stdout == ""


def test_snapshots_and_the_image_that_their_volume_is_of(service, images, volumes):
    need("qemu-io")
    old = disk("ab c")
    image = images.make(old, "of-a-volume")
    volume = volumes.create(imageRef=image)
    before = volumes.snapshot(volume, name="before")
    # New snapshots are put into the chunk store first: the command waits for that.
    assert diff(service, image, "before") == []
    attachment, info = volumes.attach(volume)
    qemu_io(info["uri"], f"write -P 7 {CHUNK + 4096} 4096", f"write -z {3 * CHUNK} {CHUNK}",
            f"write -P 9 {100 * CHUNK} 65536")
    volumes.detach(attachment)
    after = volumes.snapshot(volume, name="after")
    expected_runs = [{"offset": CHUNK, "length": CHUNK, "zero": False},
                     {"offset": 3 * CHUNK, "length": CHUNK, "zero": True},
                     {"offset": 100 * CHUNK, "length": CHUNK, "zero": False}]
    assert diff(service, "before", "after") == expected_runs
    assert diff(service, image, after) == expected_runs
    # An image is shorter: what it does not reach is not its.
    assert diff(service, after, image) == [{"offset": CHUNK, "length": CHUNK, "zero": False},
                                           {"offset": 3 * CHUNK, "length": CHUNK, "zero": False}]
    # Without another: what is allocated.
    listed = volumes.ok("GET", f"/snapshots/{before}/changed")
    assert listed["size"] == 1 << 30
    assert [(run["offset"], run["length"]) for run in listed["changed"]] == [
        (0, 2 * CHUNK), (3 * CHUNK, CHUNK)]


def test_pages_by_hand_and_other_tenants(service, images, volumes):
    # A user without a role in the project of these images.
    service.new_member("alice", "red")
    token = service.token("alice", USER_PASSWORD, "red")
    hers = Images(service, token)
    her_volumes = Volumes(service, token)

    old = images.make(disk("a a a "), "paged-old", visibility="community")
    new = images.make(disk("bbb b "), "paged-new")
    path, runs, pages = f"/{new}/changed?since={old}&limit=1", [], [""]
    for page in pages:
        reply = images.call("GET", path + page)
        assert reply.status == 200 and len(reply.json()["changed"]) == 1, reply.body
        runs += reply.json()["changed"]
        if "next_page_token" in reply.json():
            pages.append("&page_token=" + reply.json()["next_page_token"])
    assert runs == expected(disk("a a a "), disk("bbb b "))
    # A page's token opens nothing to her.
    assert len(pages) > 1 and hers.call("GET", path + pages[-1]).status == 404
    mine = hers.make(disk("c"), "hers")
    nobodys = "00000000-0000-4000-8000-000000000000"
    answers = {other: hers.call("GET", f"/{mine}/changed?since={other}")
               for other in (new, nobodys)}
    assert {answer.status for answer in answers.values()} == {404}
    assert answers[new].body.replace(new.encode(), b"") == \
        answers[nobodys].body.replace(nobodys.encode(), b"")
    assert hers.call("GET", f"/{mine}/changed?since={old}").status == 200
    snapshot = volumes.snapshot(volumes.create())
    assert hers.call("GET", f"/{mine}/changed?since={snapshot}").status == 404
    assert her_volumes.call("GET", f"/snapshots/{snapshot}/changed").status == 404
    assert images.call("GET", f"/{new}/changed?limit=0").status == 400
    assert call("GET", f"{images.url}/{new}/changed").status == 401

    environment = service.as_user("alice", USER_PASSWORD, "red")
    done = subprocess.run([QUARRY, "diff", new, mine, "--json"], env=environment, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "no image and no snapshot" in done.stderr and done.stdout == ""
