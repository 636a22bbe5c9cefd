"""Volumes with the clients that people have: `openstack`, python-cinderclient, openstacksdk, and
the calls that Horizon, Terraform and a CSI driver make."""

import contextlib
import io
import json
import multiprocessing
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

WAIT_SECONDS = 60
# The client speaks 3.0 unless told; this is the newest that it knows.
NEWEST = ("--os-volume-api-version", "3.70")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def service():
    with quarry.Service() as running:
        yield running


def run_client(arguments, environment, pipe):
    """In a process of its own, forked from one that has the client's modules already."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        del os.environ[name]
    os.environ.update(environment)
    from openstackclient import shell
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = shell.OpenStackShell().run(list(arguments))
        except SystemExit as stopped:
            code = stopped.code
    pipe.send((code, out.getvalue(), errors.getvalue()))
    pipe.close()


class Cli:
    """The stock `openstack` client as one user."""

    def __init__(self, **environment):
        import openstackclient.shell  # noqa: F401
        self.environment = environment

    def run(self, *arguments, check=True):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=run_client, args=(arguments, self.environment, theirs))
        process.start()
        theirs.close()
        code, out, errors = ours.recv()
        process.join()
        if check:
            assert code == 0, (arguments, out, errors)
        return code, out, errors

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "-f", "json")[1])

    def refused(self, *arguments):
        """What it says when it can't."""
        code, _, errors = self.run(*arguments, check=False)
        assert code != 0, arguments
        return errors

    def wait(self, status, *show):
        """Until what `show` shows has that status; None: until it is gone."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            code, out, errors = self.run(*show, "-f", "json", check=False)
            if code != 0:
                assert status is None, errors
                return None
            item = json.loads(out)
            if item["status"] == status:
                return item
            assert time.monotonic() < deadline, item
            time.sleep(0.05)


@pytest.fixture(scope="module")
def admin(service):
    return Cli(OS_CLIENT_CONFIG_FILE=service.data_dir + "/clouds.yaml", OS_CLOUD="quarry")



@pytest.fixture(scope="module")
def alice(service, admin):
    return member(service, admin, "alice", "red")


def member(service, admin, name, project):
    admin.run("project", "create", project)
    admin.run("user", "create", "--password", "s3cret", "--project", project, name)
    admin.run("role", "add", "--project", project, "--user", name, "member")
    return Cli(OS_AUTH_URL=service.base + "/identity/v3", OS_IDENTITY_API_VERSION="3",
               OS_USERNAME=name, OS_PASSWORD="s3cret", OS_PROJECT_NAME=project,
               OS_USER_DOMAIN_ID="default", OS_PROJECT_DOMAIN_ID="default")



# ---- openstack

def test_the_life_of_a_volume(alice):
    made = alice.json("volume", "create", "--size", "1", "--description", "d", "--property", "a=b",
                      "disk")
    assert made["status"] == "creating" and made["type"] == "__DEFAULT__"
    alice.wait("available", "volume", "show", "disk")
    alice.run("volume", "set", "--name", "other", "--description", "e", "--property", "c=d",
              "--size", "2", "--bootable", "disk")
    alice.wait("available", "volume", "show", "other")
    alice.run("volume", "set", "--read-only", "other")
    shown = alice.wait("available", "volume", "show", "other")
    assert (shown["size"], shown["description"], shown["bootable"]) == (2, "e", "true")
    assert shown["properties"] == {"a": "b", "c": "d", "readonly": "True"}
    alice.run("volume", "set", "--image-property", "os=debian", "other")
    assert alice.json("volume", "show", "other")["volume_image_metadata"] == {"os": "debian"}
    alice.run("volume", "unset", "--property", "a", "--image-property", "os", "other")
    shown = alice.json("volume", "show", "other")
    assert "a" not in shown["properties"] and not shown.get("volume_image_metadata")
    listed = alice.json("volume", "list", "--long")
    assert [(v["Name"], v["Size"], v["Bootable"]) for v in listed] == [("other", 2, "true")]
    assert alice.json("volume", "list", "--status", "error") == []
    assert "No volume with a name or ID of 'disk'" in alice.refused("volume", "show", "disk")
    assert "greater than the maximum of 16384" in alice.refused("volume", "set", "--size", "16385",
                                                                "other")
    alice.run("volume", "delete", "other")
    alice.wait(None, "volume", "show", "other")


def test_copies_and_snapshots(alice):
    alice.run("volume", "create", "--size", "1", "first")
    alice.wait("available", "volume", "show", "first")
    taken = alice.json("volume", "snapshot", "create", "--volume", "first", "--property", "a=b",
                       "point")
    assert taken["size"] == 1 and taken["properties"] == {"a": "b"}
    alice.wait("available", "volume", "snapshot", "show", "point")
    alice.run("volume", "snapshot", "set", "--name", "point2", "--description", "d", "--property",
              "c=d", "point")
    alice.run("volume", "snapshot", "unset", "--property", "a", "point2")
    shown = alice.json("volume", "snapshot", "show", "point2")
    assert (shown["description"], shown["properties"]) == ("d", {"c": "d"})
    assert [s["Name"] for s in alice.json("volume", "snapshot", "list")] == ["point2"]
    alice.run("volume", "create", "--snapshot", "point2", "of-snapshot")
    alice.run("volume", "create", "--source", "first", "--size", "2", "of-volume")
    assert alice.wait("available", "volume", "show", "of-snapshot")["size"] == 1
    assert alice.wait("available", "volume", "show", "of-volume")["size"] == 2
    assert "must not be" in alice.refused("volume", "delete", "first")
    alice.run("volume", "snapshot", "delete", "point2")
    alice.wait(None, "volume", "snapshot", "show", "point2")
    alice.run("volume", "delete", "first", "of-snapshot", "of-volume")
    for name in ("first", "of-snapshot", "of-volume"):
        alice.wait(None, "volume", "show", name)


def test_an_image_becomes_a_volume_and_a_volume_an_image(alice, tmp_path):
    data = os.urandom(1 << 20)
    (tmp_path / "image").write_bytes(data)
    alice.run("image", "create", "--file", str(tmp_path / "image"), "--disk-format", "raw",
              "--container-format", "bare", "--property", "os_distro=debian", "from")
    alice.run("volume", "create", "--size", "1", "--image", "from", "booted")
    shown = alice.wait("available", "volume", "show", "booted")
    assert shown["bootable"] == "true"
    assert shown["volume_image_metadata"]["os_distro"] == "debian"
    uploading = alice.json("image", "create", "--volume", "booted", "--disk-format", "raw", "to")
    alice.wait("active", "image", "show", "to")
    alice.run("image", "save", "--file", str(tmp_path / "back"), "to")
    assert uploading["image_name"] == "to"
    with open(tmp_path / "back", "rb") as back:
        assert back.read(len(data)) == data
        assert os.fstat(back.fileno()).st_size == 1 << 30
    alice.wait("available", "volume", "show", "booted")
    alice.run("volume", "delete", "booted")
    alice.run("image", "delete", "from", "to")


def test_types_and_qos(admin, alice):
    admin.run("volume", "type", "create", "--property", "multiattach=<is> True", "fast")
    admin.run("volume", "type", "set", "--description", "d", "--property", "x=y", "fast")
    admin.run("volume", "type", "unset", "--property", "x", "fast")
    assert admin.json("volume", "type", "show", "fast")["properties"] == {
        "multiattach": "<is> True"}
    admin.run("volume", "type", "create", "--private", "secret")
    names = {t["Name"] for t in alice.json("volume", "type", "list")}
    assert names == {"__DEFAULT__", "fast"}
    admin.run("volume", "type", "set", "--project", "red", "secret")
    assert "secret" in {t["Name"] for t in alice.json("volume", "type", "list")}
    admin.run("volume", "type", "unset", "--project", "red", "secret")
    assert "403" in alice.refused("volume", "type", "create", "mine")
    admin.run("volume", "qos", "create", "--consumer", "back-end", "--property",
              "total_iops_sec=500", "gold")
    admin.run("volume", "qos", "set", "--property", "total_iops_sec=600", "--property",
              "total_bytes_sec=1048576", "gold")
    admin.run("volume", "qos", "unset", "--property", "total_bytes_sec", "gold")
    admin.run("volume", "qos", "associate", "gold", "fast")
    shown = admin.json("volume", "qos", "show", "gold")
    assert shown["properties"] == {"total_iops_sec": "600"}
    assert [q["Name"] for q in admin.json("volume", "qos", "list")] == ["gold"]
    alice.run("volume", "create", "--size", "1", "--type", "fast", "limited")
    assert alice.wait("available", "volume", "show", "limited")["multiattach"]
    admin.run("volume", "set", "--type", "__DEFAULT__",
              alice.json("volume", "show", "limited")["id"])
    assert alice.wait("available", "volume", "show", "limited")["type"] == "__DEFAULT__"
    alice.run("volume", "delete", "limited")
    admin.run("volume", "qos", "disassociate", "--all", "gold")
    admin.run("volume", "qos", "delete", "gold")
    admin.run("volume", "type", "delete", "fast", "secret")
    assert "encrypts no volumes" in admin.refused(
        "volume", "type", "create", "--encryption-provider", "luks", "locked")
    admin.run("volume", "type", "delete", "locked")


def test_a_volume_is_handed_over(service, admin, alice):
    bob = member(service, admin, "bob", "blue")
    alice.run("volume", "create", "--size", "1", "gift")
    alice.wait("available", "volume", "show", "gift")
    offer = alice.json("volume", "transfer", "request", "create", "--name", "t", "gift")
    assert [t["Name"] for t in alice.json("volume", "transfer", "request", "list")] == ["t"]
    alice.run("volume", "transfer", "request", "show", "t")
    assert "invalid auth key" in bob.refused("volume", "transfer", "request", "accept",
                                             "--auth-key", "guess", offer["id"])
    bob.run("volume", "transfer", "request", "accept", "--auth-key", offer["auth_key"],
            offer["id"])
    assert "gift" not in {v["Name"] for v in alice.json("volume", "list")}
    bob.wait("available", "volume", "show", "gift")
    again = bob.json("volume", "transfer", "request", "create", "gift")
    bob.run("volume", "transfer", "request", "delete", again["id"])
    bob.wait("available", "volume", "show", "gift")
    bob.run("volume", "delete", "gift")


def test_what_an_administrator_looks_at(admin, alice):
    services = admin.json("volume", "service", "list")
    assert {s["Binary"] for s in services} == {"cinder-volume", "cinder-scheduler"}
    assert {s["State"] for s in services} == {"up"}
    assert admin.json("availability", "zone", "list", "--volume")[0]["Zone Name"] == "nova"
    for listed in ("message", "attachment", "group", "group type", "group snapshot"):
        assert admin.json(*NEWEST, "volume", *listed.split(), "list") == []
    assert "no volume groups" in admin.refused(*NEWEST, "volume", "group", "type", "create", "g")
    assert admin.json(*NEWEST, "block", "storage", "resource", "filter", "list")
    assert admin.json(*NEWEST, "block", "storage", "cluster", "list") == []
    host = next(s["Host"] for s in services if s["Binary"] == "cinder-volume")
    assert "There is one" in admin.refused("volume", "service", "set", "--disable", host,
                                           "cinder-volume")
    alice.run("volume", "create", "--size", "1", "moved")
    found = alice.wait("available", "volume", "show", "moved")["id"]
    assert "HTTP 400" in admin.refused("volume", "migrate", "--host", "elsewhere", found)
    assert [v["Name"] for v in admin.json("volume", "list", "--all-projects")] == ["moved"]
    admin.run("volume", "set", "--state", "error", found)
    alice.wait("error", "volume", "show", "moved")
    admin.run("volume", "delete", "--force", found)
    alice.wait(None, "volume", "show", "moved")


# ---- libraries

def session_of(service, user="admin", password=None, project="admin"):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    return session.Session(auth=v3.Password(
        auth_url=service.base + "/identity/v3", username=user,
        password=password or service.password(), project_name=project,
        user_domain_id="default", project_domain_id="default"))


def settle(get, status="available"):
    deadline = time.monotonic() + WAIT_SECONDS
    while (item := get()).status != status:
        assert time.monotonic() < deadline, item.status
        time.sleep(0.02)
    return item


def test_cinderclient_attaches_and_sets_quotas(service):
    """Nova, Horizon."""
    from cinderclient import client
    cinder = client.Client("3.70", session=session_of(service))
    volume = cinder.volumes.create(1, name="v")
    settle(lambda: cinder.volumes.get(volume.id))
    server = "d9c8a3f5-3ab8-4a4e-8a2c-5c2ee1d0a111"
    made = cinder.attachments.create(volume.id, None, server, mode="rw")
    assert made["status"] == "reserved"
    made = cinder.attachments.update(made["id"], {"host": "h", "mountpoint": "vdb"})
    assert made.connection_info["driver_volume_type"] == "nbd"
    assert made.connection_info["export"].startswith(made.id + ".")
    cinder.attachments.complete(made.id)
    held = settle(lambda: cinder.volumes.get(volume.id), "in-use")
    assert held.attachments[0]["server_id"] == server
    assert [a.id for a in cinder.attachments.list(search_opts={"volume_id": volume.id})] == [
        made.id]
    cinder.volumes.extend(volume.id, 2)
    settle(lambda: cinder.volumes.get(volume.id), "in-use")
    cinder.attachments.delete(made.id)
    settle(lambda: cinder.volumes.get(volume.id))
    snapshot = cinder.volume_snapshots.create(volume.id, name="s")
    settle(lambda: cinder.volume_snapshots.get(snapshot.id))
    cinder.volumes.revert_to_snapshot(volume, snapshot)
    settle(lambda: cinder.volumes.get(volume.id))

    project = cinder.client.get_project_id()
    cinder.quotas.update(project, volumes=1)
    assert cinder.quotas.get(project, usage=True).volumes == {
        "limit": 1, "in_use": 1, "reserved": 0}
    with pytest.raises(Exception, match="VolumeLimitExceeded"):
        cinder.volumes.create(1)
    limits = {limit.name: limit.value for limit in cinder.limits.get().absolute}
    assert (limits["maxTotalVolumes"], limits["totalVolumesUsed"]) == (1, 1)
    cinder.quotas.delete(project)
    assert cinder.quotas.get(project).volumes == cinder.quotas.defaults(project).volumes
    assert cinder.quota_classes.get("default").volumes == 10
    for listed in (cinder.volumes.list(detailed=True, search_opts={"all_tenants": 1}, limit=1),
                   cinder.volume_snapshots.list(search_opts={"volume_id": volume.id}),
                   cinder.volume_types.list(), cinder.services.list(),
                   cinder.pools.list(detailed=True), cinder.availability_zones.list()):
        assert listed
    assert cinder.volumes.summary(all_tenants=True)["volume-summary"]["total_count"] >= 1
    cinder.volumes.delete(volume.id, cascade=True)


def test_openstacksdk(service):
    """Ansible, and everything else that is written against it."""
    import openstack
    cloud = openstack.connection.Connection(
        session=session_of(service), region_name="RegionOne", block_storage_api_version="3")
    volume = cloud.create_volume(1, name="v", wait=True, timeout=WAIT_SECONDS)
    snapshot = cloud.create_volume_snapshot(volume["id"], name="s", wait=True,
                                            timeout=WAIT_SECONDS)
    assert volume["id"] in {v["id"] for v in cloud.list_volumes()}
    assert cloud.get_volume(volume["id"])["name"] == "v"
    block = cloud.block_storage
    block.extend_volume(volume["id"], 2)
    settle(lambda: block.get_volume(volume["id"]))
    assert block.get_volume(volume["id"]).size == 2
    assert [s.name for s in block.snapshots(volume_id=volume["id"])] == ["s"]
    assert list(block.types()) and list(block.backend_pools())
    assert block.get_limits().absolute.max_total_volumes == 10
    assert cloud.delete_volume_snapshot(snapshot["id"], wait=True, timeout=WAIT_SECONDS)
    assert cloud.delete_volume(volume["id"], wait=True, timeout=WAIT_SECONDS)
    # The newest that is spoken, and one that is not.
    newest = block.get("/volumes/detail", microversion="3.71")
    assert newest.headers["OpenStack-API-Version"] == "volume 3.71"
    assert block.get("/volumes", microversion="3.72").status_code == 406


def test_what_terraform_and_a_csi_driver_ask(service):
    """Raw, as gophercloud sends it: no microversion but for an extension in use."""
    headers = {"X-Auth-Token": service.token(), "Accept": "application/json"}
    projects = quarry.call("GET", service.base + "/identity/v3/projects?name=admin", None, headers)
    url = f"{service.base}/volume/v3/{projects.json()['projects'][0]['id']}"

    def ask(method, path, body=None, status=200, version=None):
        more = {"OpenStack-API-Version": f"volume {version}"} if version else {}
        reply = quarry.call(method, url + path, body, {**headers, **more})
        assert reply.status == status, (method, path, reply.status, reply.body)
        return reply.json() if reply.body else None

    def wait(kind, item_id):
        deadline = time.monotonic() + WAIT_SECONDS
        while ask("GET", f"/{kind}s/{item_id}")[kind]["status"] != "available":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    tags = {"cinder.csi.openstack.org/cluster": "kubernetes"}
    made = [ask("POST", "/volumes", {"volume": {
        "name": f"pvc-{i}", "size": 1, "availability_zone": "nova", "metadata": tags}},
                202)["volume"]["id"] for i in range(3)]
    for volume in made:
        wait("volume", volume)
    (found,) = ask("GET", "/volumes/detail?name=pvc-1")["volumes"]
    assert found["id"] == made[1]
    assert found["metadata"] == tags
    # A CSI driver's list, page after page by its marker.
    seen, marker = [], ""
    while page := ask("GET", f"/volumes/detail?limit=2{marker}")["volumes"]:
        seen += [volume["id"] for volume in page]
        marker = f"&marker={seen[-1]}"
    assert set(made) <= set(seen) and len(seen) == len(set(seen))
    snapshot = ask("POST", "/snapshots", {"snapshot": {
        "name": "snapshot-1", "volume_id": made[0], "force": True, "metadata": tags,
        "description": "Created by OpenStack Cinder CSI driver"}}, 202)["snapshot"]["id"]
    wait("snapshot", snapshot)
    (found,) = ask("GET", f"/snapshots/detail?name=snapshot-1&status=available&volume_id={made[0]}"
                   )["snapshots"]
    assert found["id"] == snapshot
    ask("POST", f"/volumes/{made[1]}/action", {"os-extend": {"new_size": 2}}, 202, version="3.42")
    wait("volume", made[1])
    ask("GET", "/limits")
    ask("GET", "/types?is_public=None")
    ask("DELETE", f"/snapshots/{snapshot}", None, 202)
    deadline = time.monotonic() + WAIT_SECONDS
    while quarry.call("GET", f"{url}/snapshots/{snapshot}", None, headers).status != 404:
        assert time.monotonic() < deadline
    for volume in made:
        ask("DELETE", f"/volumes/{volume}?cascade=false", None, 202)


# ---- limits of projects

def test_an_operator_limits_a_project(service, admin, alice):
    headers = {"X-Auth-Token": service.token(), "Accept": "application/json"}
    project = admin.json("project", "show", "red")["id"]
    url = f"{service.base}/volume/v3/os-project-qos"
    specs = {"total_iops_sec": "500"}
    put = quarry.call("PUT", f"{url}/{project}", {"project_qos": {"specs": specs}}, headers)
    assert put.status == 200, put.body
    assert put.json()["project_qos"] == {"project_id": project, "specs": specs}
    assert quarry.call("GET", url, None, headers).json()["project_qos"] == [
        put.json()["project_qos"]]
    mine = {"X-Auth-Token": service.token("alice", "s3cret", "red")}
    assert quarry.call("GET", f"{url}/{project}", None, mine).json() == put.json()
    assert quarry.call("DELETE", f"{url}/{project}", None, mine).status == 403
    assert quarry.call("DELETE", f"{url}/{project}", None, headers).status == 204
