"""Access rules: a credential made by the stock client opens just the calls that it names."""

import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

RULES = [{"service": "image", "method": "GET", "path": "/v2/images"},
         {"service": "image", "method": "GET", "path": "/v2/schemas/**"},
         {"service": "image", "method": "GET", "path": "/image/v2/images/{image_id}"},
         {"service": "image", "method": "POST", "path": "/v2/images"}]


def openstack(environment, *args):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "QUARRY_"))}
    return subprocess.run(["/usr/bin/openstack", *args], env={**clean, **environment},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def service():
    with quarry.Service() as running:
        yield running


@pytest.fixture(scope="module")
def limited(service):
    """The environment of one who logs in with the credential."""
    admin = {"OS_CLIENT_CONFIG_FILE": service.data_dir + "/clouds.yaml", "OS_CLOUD": "quarry"}
    made = openstack(admin, "application", "credential", "create", "--access-rules",
                     json.dumps(RULES), "-f", "json", "limited")
    assert made.returncode == 0, made.stderr
    credential = json.loads(made.stdout)
    listed = openstack(admin, "access", "rule", "list", "-f", "json")
    assert listed.returncode == 0 and len(json.loads(listed.stdout)) == len(RULES), listed.stderr
    return {"OS_AUTH_TYPE": "v3applicationcredential", "OS_AUTH_URL": service.base + "/identity/v3",
            "OS_IDENTITY_API_VERSION": "3", "OS_APPLICATION_CREDENTIAL_ID": credential["id"],
            "OS_APPLICATION_CREDENTIAL_SECRET": credential["secret"]}


def test_the_stock_client_does_what_the_rules_allow_and_no_more(service, limited):
    image = quarry.Images(service).make(b"some bytes", name="one")
    shown = openstack(limited, "image", "show", image, "-f", "json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["name"] == "one", shown.stderr
    listed = openstack(limited, "image", "list", "-f", "json")
    assert listed.returncode == 0 and len(json.loads(listed.stdout)) == 1, listed.stderr
    for args in (["image", "delete", image], ["user", "list"], ["image", "save", image]):
        refused = openstack(limited, *args)
        said = refused.stdout + refused.stderr
        assert refused.returncode != 0 and "401" in said, (args, refused)
    assert quarry.Images(service).show(image).status == 200


def test_each_service_keeps_to_the_rules(service, limited):
    reply = quarry.call("POST", service.base + "/identity/v3/auth/tokens", {
        "auth": {"identity": {"methods": ["application_credential"], "application_credential": {
            "id": limited["OS_APPLICATION_CREDENTIAL_ID"],
            "secret": limited["OS_APPLICATION_CREDENTIAL_SECRET"]}}}})
    assert reply.status == 201, reply.body
    token = reply.headers["X-Subject-Token"]

    def status(method, path, body=None, **headers):
        return quarry.call(method, service.base + path, body,
                           {"X-Auth-Token": token, **headers}).status

    assert status("GET", "/image/v2/images?limit=1") == 200
    assert status("GET", "/image/v2/images/") != 200, "the path is another"
    assert status("POST", "/image/v2/images", {"name": "made"}) == 201
    image = quarry.Images(service).create()["id"]
    assert status("GET", f"/image/v2/images/{image}") == 200
    assert status("GET", f"/image/v2/images/{image}/file") == 401
    assert status("PUT", f"/image/v2/images/{image}/file", b"data") == 401
    assert status("DELETE", f"/image/v2/images/{image}") == 401
    assert status("GET", "/admin/v1/stats") == 401
    assert status("GET", "/identity/v3/users") == 401
    assert status("GET", "/identity/v3/auth/tokens", **{
        "X-Subject-Token": token, "OpenStack-Identity-Access-Rules": "1.0"}) == 200
