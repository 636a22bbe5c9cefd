"""The cluster of `./dev ceph`: others' tests stand on it."""

import json
import pathlib
import shutil
import tempfile
import time

import pytest

import ceph


@pytest.fixture(name="folder")
def short_folder():
    """Names of Unix sockets are short: pytest's own folders are too deep."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quarry-ceph-"))
    yield folder
    ceph.Cluster(folder).down()
    shutil.rmtree(folder, ignore_errors=True)


def rados(cluster, *words, **kwargs):
    return ceph.run("rados", "-p", "chunks", *words, env=cluster.environment(), **kwargs)


def test_two_side_by_side_and_data_that_outlives_a_stop(folder):
    cluster = ceph.Cluster(folder)
    cluster.up(osds=1, size=1, osd_gb=2)
    rados(cluster, "put", "name", "-", input="first")
    with ceph.temporary_cluster(osds=1, size=1, osd_gb=2, auth=False) as other:
        rados(other, "put", "name", "-", input="other")
        assert rados(cluster, "get", "name", "-") == "first"
    assert all(other.pid(daemon) is None for daemon in ("mon.a", "osd.0"))
    assert not other.folder.exists()

    cluster.up()  # changes nothing
    cluster.down(keep=True)
    assert cluster.pid("osd.0") is None
    cluster.down(keep=True)
    cluster.up()
    assert rados(cluster, "get", "name", "-") == "first"
    cluster.down()
    assert not folder.exists()
    cluster.down()


def test_one_osd_of_three_may_die():
    with ceph.temporary_cluster(osds=3, size=2, osd_gb=2) as cluster:
        rados(cluster, "put", "name", "-", input="x" * 1000)
        cluster.kill("osd.1")
        assert cluster.pid("osd.1") is None
        rados(cluster, "put", "name", "-", input="y" * 1000)
        cluster.start("osd.1")
        cluster.wait_until_written()
        assert rados(cluster, "get", "name", "-") == "y" * 1000
        up = json.loads(cluster.ceph("osd", "stat", "-f", "json"))
        assert up["num_osds"] == 3


def test_a_cluster_ends_with_whom_it_was_made_for(folder):
    """Even if that is killed: no daemon is left, and no folder."""
    said = folder / "said"
    command = f'echo "$CEPH_CONF" > {said}; kill -9 $PPID'
    with pytest.raises(ceph.ClusterError):
        ceph.run(pathlib.Path(ceph.__file__).with_name("with_cluster.py"), "--osds", 1, "--size", 1,
                 "--osd-gb", 2, "sh", "-c", command)
    ended = pathlib.Path(said.read_text().strip()).parent
    give_up = time.monotonic() + 30
    while ended.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not ended.exists()


def test_what_is_not_ours_is_refused(folder):
    precious = folder / "precious"
    precious.touch()
    with pytest.raises(ceph.ClusterError, match="not empty"):
        ceph.Cluster(folder).up(osds=1, size=1)
    assert precious.exists()
    precious.unlink()
    with pytest.raises(ceph.ClusterError, match="copies"):
        ceph.Cluster(folder).up(osds=1, size=2)
    with pytest.raises(ceph.ClusterError, match="too long"):
        ceph.Cluster(folder / ("x" * 80)).up(osds=1, size=1)
