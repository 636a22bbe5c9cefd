"""A whole service on a cluster in which something is wrong: what was acknowledged stays, what can't
be done is said, and when the cluster is well again, so is the service."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import ceph

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
os.environ["TEST_QUARRY_STORE"] = "ceph"
from service import Images, Service, call  # noqa: E402
from volumes import Volumes  # noqa: E402

MIB = 1 << 20
# Longer than the cluster needs to see that an OSD hangs (4 s, ceph_conf.py).
HANG_SECONDS = 8


@contextlib.contextmanager
def service_on(cluster, options=(), **kwargs):
    os.environ["CEPH_CONF"] = str(cluster.conf)
    with Service(options=list(options), **kwargs) as service:
        yield service


@pytest.fixture(name="cluster", scope="module")
def three_osds():
    # Three copies: an OSD may die while another one still catches up.
    with ceph.temporary_cluster(osds=3, size=3, osd_gb=3) as cluster:
        yield cluster


def data_of(seed, mib=9):
    return random.Random(seed).randbytes(mib * MIB)


def file_of(images, image):
    reply = images.call("GET", f"/{image}/file")
    assert reply.status == 200, (reply.status, reply.body[:300])
    return reply.body


class Busy(threading.Thread):
    """fio writes to a volume and verifies what it wrote, until the time is over."""

    def __init__(self, uri, seconds):
        super().__init__()
        self.command = ["fio", "--name=v", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite",
                        "--bs=4k", "--size=64m", "--io_size=1g", "--iodepth=8", "--verify=crc32c",
                        "--verify_backlog=512", "--verify_fatal=1", "--verify_state_save=0",
                        "--time_based",
                        f"--runtime={seconds}"]
        self.done = None

    def run(self):
        self.done = subprocess.run(self.command, capture_output=True, text=True, check=False)

    def check(self):
        self.join()
        assert self.done.returncode == 0, self.done.stdout[-2000:] + self.done.stderr[-2000:]


def test_osds_that_die_and_hang_under_a_volume_and_uploads(cluster):
    with service_on(cluster) as service:
        images, volumes = Images(service), Volumes(service)
        _, connection = volumes.attach(volumes.create(1))
        busy = Busy(connection["uri"], 3 * HANG_SECONDS)
        busy.start()
        kept = {}
        cluster.kill("osd.0")
        for number in range(6):
            kept[images.make(data_of(number))] = number
        cluster.start("osd.0")
        cluster.wait_until_written()
        cluster.kill("osd.1", signal.SIGSTOP)
        kept[images.make(data_of(6))] = 6
        time.sleep(HANG_SECONDS)
        cluster.kill("osd.1", signal.SIGCONT)
        kept[images.make(data_of(7))] = 7
        busy.check()
        for image, number in kept.items():
            assert file_of(images, image) == data_of(number)
        report = service.quarry("scrub", "--json")
        assert report.returncode == 0, report.stdout + report.stderr


def test_a_monitor_that_is_away_for_a_while(cluster):
    with service_on(cluster) as service:
        images = Images(service)
        before = images.make(data_of(10))
        cluster.kill("mon.a")
        # Who is connected to the OSDs needs it for nothing.
        assert file_of(images, before) == data_of(10)
        after = images.make(data_of(11))
        cluster.start("mon.a")
        cluster.wait_until_written()
        assert file_of(images, after) == data_of(11)
        Volumes(service).create(1)


def set_full_ratios(cluster, full):
    """From where on OSDs take themselves for full."""
    kinds = ("nearfull", "backfillfull", "full")
    for kind, ratio in zip(kinds, (full * 0.98, full * 0.99, full)):
        cluster.ceph("osd", f"set-{kind}-ratio", ratio)


def test_a_full_pool(cluster):
    with service_on(cluster) as service:
        images = Images(service)
        kept = images.make(data_of(20))
        set_full_ratios(cluster, 0.001)
        try:
            refused = None
            give_up = time.monotonic() + 60
            while refused is None:  # the OSDs hear of it in their time
                image = images.create("too much")["id"]
                reply = images.upload(image, data_of(time.monotonic_ns()))
                if reply.status != 204:
                    refused = reply
                assert images.call("DELETE", "/" + image).status == 204
                assert time.monotonic() < give_up, "the pool is never full"
            assert refused.status in (413, 507), (refused.status, refused.body)
            assert file_of(images, kept) == data_of(20)
            gone = images.list()[0]["id"]
            assert images.call("DELETE", "/" + gone).status == 204
            assert service.quarry("gc").returncode == 0, "what is deleted goes, full or not"
        finally:
            set_full_ratios(cluster, 0.95)
        give_up = time.monotonic() + 60
        while True:
            image = images.create("again")["id"]
            reply = images.upload(image, data_of(22))
            if reply.status == 204:
                break
            assert time.monotonic() < give_up, (reply.status, reply.body)
            time.sleep(0.5)
        assert file_of(images, image) == data_of(22)


def test_a_chunk_that_somebody_wrote_over(cluster):
    """The same on all copies: Ceph has nothing to heal it with. We tell, and heal by the next
    upload of the same bytes."""
    with service_on(cluster) as service:
        images = Images(service)
        image = images.make(data_of(30, mib=4))
        namespace = next(word.split("=")[1] for word in service.options if "namespace" in word)
        where = ("rados", "-p", "chunks", "-N", namespace)
        names = ceph.run(*where, "ls", env=cluster.environment()).split()
        sizes = {name: int(ceph.run(*where, "stat", name, env=cluster.environment()).split()[-1])
                 for name in names}
        largest = max(names, key=sizes.get)
        ceph.run(*where, "put", largest, "-", "--offset", 1000, input="not what it was",
                 env=cluster.environment())
        with pytest.raises((OSError, AssertionError)):
            file_of(images, image)
        assert service.quarry("scrub").returncode == 3
        again = images.make(data_of(30, mib=4))
        assert file_of(images, again) == file_of(images, image) == data_of(30, mib=4)


def test_a_service_that_is_cut_off(cluster):
    """SIGSTOP of all daemons at once is what a cut looks like from a service: packets get no
    answer. Errors come in bounded time; afterwards everything that was acknowledged is there."""
    with service_on(cluster, options=["--ceph.timeout=3s"]) as service:
        images = Images(service)
        kept = images.make(data_of(40))
        for daemon in cluster.daemons():
            cluster.kill(daemon, signal.SIGSTOP)
        try:
            began = time.monotonic()
            reply = images.call("POST", "", {"name": "x", "disk_format": "raw",
                                             "container_format": "bare"})
            assert reply.status in (500, 503), (reply.status, reply.body)
            assert time.monotonic() - began < 60
            assert call("GET", service.base + "/healthz").status in (200, 503)
        finally:
            for daemon in cluster.daemons():
                cluster.kill(daemon, signal.SIGCONT)
        cluster.wait_until_written()
        give_up = time.monotonic() + 60
        while images.call("GET", f"/{kept}/file").body != data_of(40):
            assert time.monotonic() < give_up
            time.sleep(0.2)
        images.make(data_of(41))
