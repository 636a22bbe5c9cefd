"""Quarry beside a real Keystone (auth.mode=keystone), with the stock client."""

import json
import os
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import keystone as real  # noqa: E402
import service as quarry  # noqa: E402

# How long an answer of the Keystone is believed (base/auth/keystone_verifier.h), and what a busy
# machine may take beside that.
REVOKED_AFTER_SECONDS = 1
SLACK_SECONDS = 5
ADMIN_PASSWORD, SERVICE_PASSWORD = "adm1n-of-keystone", "s3rvice-of-quarry"

if real.missing():
    print(f"\n*** tests/e2e/test_keystone.py CANNOT RUN HERE: apt-get install {real.missing()} "
          "(./dev test does it)\n", file=sys.__stderr__, flush=True)
pytestmark = pytest.mark.skipif(bool(real.missing()),
                                reason=f"needs a Keystone: apt-get install {real.missing()}")


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    running = real.Keystone(tmp_path_factory.mktemp("keystone"), ADMIN_PASSWORD).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def service(keystone):
    """A Quarry that was made known to the Keystone just as its welcome says."""
    with quarry.Service(options=["--auth.mode=keystone", f"--auth.url={keystone.url}"],
                        environment={"QUARRY_AUTH_PASSWORD": SERVICE_PASSWORD}) as running:
        said = [line.strip() for line in running.log_text().splitlines()
                if line.startswith("  openstack ")]
        assert len(said) == 8, running.log_text()
        environment = dict(running.environment, QUARRY_AUTH_PASSWORD=SERVICE_PASSWORD,
                           **keystone.variables())
        for line in said:
            done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
        yield running


@pytest.fixture(scope="module")
def people(keystone, service):
    """Project ids; alice and bob are members of theirs, carol reads what is alice's."""
    red = keystone.make_user("alice", "red", "member")
    keystone.make_user("carol", "red", "reader")
    return {"red": red, "blue": keystone.make_user("bob", "blue", "member")}


def openstack(keystone, user, project, *args, check=True):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "QUARRY_"))}
    environment.update(keystone.variables(user, "s3cret", project))
    done = subprocess.run(["/usr/bin/openstack", *args], env=environment, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)
    if check:
        assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done


def list_images(service, token):
    return quarry.call("GET", service.base + "/image/v2/images", None, {"X-Auth-Token": token})


def test_stock_client_finds_us_in_the_keystones_catalog(keystone, service, people, tmp_path):
    data = tmp_path / "disk.raw"
    data.write_bytes(os.urandom(5_000_000))
    made = openstack(keystone, "alice", "red", "image", "create", "--shared", "--file", str(data),
                     "--disk-format", "raw", "--container-format", "bare", "-f", "json", "disk")
    image = json.loads(made.stdout)
    assert image["owner"] == people["red"]
    as_bob = lambda *args, **more: openstack(keystone, "bob", "blue", *args, **more)
    assert json.loads(as_bob("image", "list", "-f", "json").stdout) == []
    openstack(keystone, "alice", "red", "image", "add", "project", image["id"], people["blue"])
    as_bob("image", "set", "--accept", image["id"])
    listed = json.loads(as_bob("image", "list", "-f", "json").stdout)
    assert [(row["ID"], row["Status"]) for row in listed] == [(image["id"], "active")]
    copy = tmp_path / "copy.raw"
    as_bob("image", "save", "--file", str(copy), image["id"])
    assert copy.read_bytes() == data.read_bytes()


def test_a_reader_reads_and_no_more(keystone, service, people):
    alice = quarry.Images(service, keystone.token("alice", "s3cret", "red"))
    carol = quarry.Images(service, keystone.token("carol", "s3cret", "red"))
    image = alice.make(b"read me" * 1000)
    assert carol.call("GET", f"/{image}/file").body == b"read me" * 1000
    refused = [carol.call("POST", "", {"name": "x"}),
               carol.upload(alice.create("queued")["id"], b"x"),
               carol.call("PATCH", f"/{image}",
                          json.dumps([{"op": "replace", "path": "/name", "value": "x"}]).encode(),
                          {"Content-Type": "application/openstack-images-v2.1-json-patch"}),
               carol.call("DELETE", f"/{image}")]
    assert [reply.status for reply in refused] == [403] * 4
    done = openstack(keystone, "carol", "red", "image", "create", "no", check=False)
    assert done.returncode != 0 and "403" in done.stderr, done.stderr


def test_without_a_good_token_one_is_sent_to_the_keystone(keystone, service):
    wanted = f'Keystone uri="{keystone.url}"'
    for path in ("/image/v2/images", "/image/v2/images/x/file", "/admin/v1/stats"):
        for headers in ({}, {"X-Auth-Token": "nonsense"}, {"X-Auth-Token": "a" * 300}):
            reply = quarry.call("GET", service.base + path, None, headers)
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, wanted), path
    assert quarry.call("GET", service.base + "/identity/v3").status == 404


def test_a_revoked_token_ends_within_its_time(keystone, service, people):
    token = keystone.token("alice", "s3cret", "red")
    assert list_images(service, token).status == 200
    keystone.revoke(token)
    deadline = time.monotonic() + REVOKED_AFTER_SECONDS + SLACK_SECONDS
    while (status := list_images(service, token).status) == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 401


def test_maintenance_asks_for_an_admin_of_the_keystone(keystone, service):
    endpoint = os.path.join(service.data_dir, "endpoint")
    assert open(endpoint, encoding="utf-8").read() == service.base + "\n"
    assert not os.path.exists(os.path.join(service.data_dir, "clouds.yaml"))
    nobody = service.quarry("stats")
    assert nobody.returncode == 1
    assert "runs on " + service.base in nobody.stderr and "OS_AUTH_URL" in nobody.stderr
    service.environment.update(keystone.variables())
    try:
        for command in (("stats", "--json"), ("gc", "--json")):
            done = service.quarry(*command)
            assert done.returncode == 0, done.stderr
            json.loads(done.stdout)
    finally:
        for name in keystone.variables():
            del service.environment[name]


# Last: the others need the Keystone.
def test_a_keystone_that_is_down_is_nobodys_wrong_token(keystone, service, people):
    token = keystone.token("alice", "s3cret", "red")
    assert list_images(service, token).status == 200
    keystone.stop()
    try:
        reply = list_images(service, "another-token")
        assert reply.status == 503 and reply.headers["Retry-After"]
        assert "identity service" in reply.body.decode(), reply.body
        # What was asked a moment ago is believed for its time, and no longer.
        deadline = time.monotonic() + REVOKED_AFTER_SECONDS + SLACK_SECONDS
        while (reply := list_images(service, token)).status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reply.status == 503
        assert quarry.call("GET", service.base + "/healthz").status == 200
        assert "can't verify a token" in service.log_text()
    finally:
        keystone.start()
    assert list_images(service, token).status == 200


def test_a_wrong_service_user_is_told_to_the_operator(keystone):
    with quarry.Service(options=["--auth.mode=keystone", f"--auth.url={keystone.url}"],
                        environment={"QUARRY_AUTH_PASSWORD": "wrong"}) as service:
        reply = list_images(service, keystone.token())
        assert reply.status == 503, reply.body
        assert "check the service user" in service.log_text()
