"""The main job, with the stock client and real Debian disk images: in, stored once, and back."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = os.path.join(ROOT, "build", "images")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def disk_images():
    subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "bench/images/make.py"), IMAGES,
                    "base", "added"], check=True, stdout=sys.stderr)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", f"{IMAGES}/base.raw",
                    f"{IMAGES}/main-job.qcow2"], check=True)
    return {"base": f"{IMAGES}/base.raw", "added": f"{IMAGES}/added.raw",
            "qcow2": f"{IMAGES}/main-job.qcow2"}


@pytest.fixture(scope="module")
def service():
    with quarry.Service() as running:
        yield running


class Cli:
    """The stock `openstack` client as one user."""

    def __init__(self, service, **variables):
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("OS_", "QUARRY_"))}
        self.environment.update(variables)
        self.service = service

    def run(self, *args, check=True):
        done = subprocess.run(["/usr/bin/openstack", *args], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check:
            assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done

    def json(self, *args):
        return json.loads(self.run(*args, "-f", "json").stdout)


@pytest.fixture(scope="module")
def admin(service):
    return Cli(service, OS_CLIENT_CONFIG_FILE=service.data_dir + "/clouds.yaml", OS_CLOUD="quarry")


def user(service, name, project):
    return Cli(service, OS_AUTH_URL=service.base + "/identity/v3", OS_IDENTITY_API_VERSION="3",
               OS_USERNAME=name, OS_PASSWORD="s3cret", OS_PROJECT_NAME=project,
               OS_USER_DOMAIN_ID="default", OS_PROJECT_DOMAIN_ID="default")


def create(cli, path, name, disk_format="raw", *more):
    return cli.json("image", "create", "--file", path, "--disk-format", disk_format,
                    "--container-format", "bare", *more, name)


def stats(service, *image):
    done = service.quarry("stats", *image, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_real_images_are_stored_once_and_come_back(service, admin, disk_images, tmp_path):
    for name, disk_format in (("base", "raw"), ("added", "raw"), ("qcow2", "qcow2")):
        made = create(admin, disk_images[name], name, disk_format)
        assert made["name"] == name
    before = stats(service)
    create(admin, disk_images["base"], "again")
    after = stats(service)
    assert after["unique_bytes"] == before["unique_bytes"], "the same image took space twice"
    assert after["logical_bytes"] == before["logical_bytes"] + os.path.getsize(disk_images["base"])

    names = {row["Name"]: row["Status"] for row in admin.json("image", "list")}
    assert names == {name: "active" for name in ("base", "added", "qcow2", "again")}
    for name in names:
        copy = tmp_path / name
        admin.run("image", "save", "--file", str(copy), name)
        source = disk_images["base" if name == "again" else name]
        assert sha256(copy) == sha256(source), name
        copy.unlink()

    shown = admin.json("image", "show", "base")
    assert shown["size"] == os.path.getsize(disk_images["base"])
    virtual_size = admin.json("image", "show", "qcow2")["virtual_size"]
    assert virtual_size == os.path.getsize(disk_images["base"])
    share = stats(service, "again")
    assert share["unique_bytes"] == 0 and share["shared_bytes"] == share["nonzero_bytes"] > 0


def test_set_changes_what_it_says(admin, disk_images):
    admin.run("image", "set", "--property", "os_distro=debian", "--tag", "gold", "--min-disk", "2",
              "base")
    shown = admin.json("image", "show", "base")
    assert shown["properties"]["os_distro"] == "debian"
    assert shown["tags"] == ["gold"] and shown["min_disk"] == 2


def test_projects_are_apart_until_an_image_is_shared(service, admin, tmp_path):
    for project, name in (("red", "alice"), ("blue", "bob")):
        admin.run("project", "create", project)
        admin.run("user", "create", "--password", "s3cret", "--project", project, name)
        admin.run("role", "add", "--project", project, "--user", name, "member")
    alice, bob = user(service, "alice", "red"), user(service, "bob", "blue")
    data = tmp_path / "secret.raw"
    data.write_bytes(os.urandom(100_000))
    image = create(alice, str(data), "secret", "raw", "--shared")["id"]

    assert [row["ID"] for row in alice.json("image", "list")] == [image]
    assert bob.json("image", "list") == []
    refused = bob.run("image", "show", image, check=False)
    assert refused.returncode != 0 and "No Image found for" in refused.stderr

    blue = admin.json("project", "show", "blue")["id"]
    alice.run("image", "add", "project", image, blue)
    bob.run("image", "set", "--accept", image)
    assert [row["ID"] for row in bob.json("image", "list")] == [image]
    copy = tmp_path / "copy.raw"
    bob.run("image", "save", "--file", str(copy), image)
    assert copy.read_bytes() == data.read_bytes()
    forbidden = bob.run("image", "delete", image, check=False)
    assert forbidden.returncode != 0
    assert [row["ID"] for row in alice.json("image", "list")] == [image]


def test_errors_are_sentences(admin, tmp_path):
    liar = tmp_path / "liar.qcow2"
    liar.write_bytes(b"this is no qcow2 image" * 1000)
    done = admin.run("image", "create", "--file", str(liar), "--disk-format", "qcow2",
                     "--container-format", "bare", "liar", check=False)
    assert done.returncode != 0
    assert "qcow2" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_own_command_line_pushes_and_pulls(service, disk_images, tmp_path):
    pushed = service.quarry("image", "push", disk_images["added"], "--name", "pushed", "--json")
    assert pushed.returncode == 0, pushed.stderr
    image = json.loads(pushed.stdout)
    assert image["status"] == "active" and image["disk_format"] == "raw"
    again = service.quarry("image", "push", disk_images["added"], "--name", "pushed")
    assert "already there: 100 %" in again.stdout, (again.stdout, again.stderr)

    copy = tmp_path / "copy.raw"
    pulled = service.quarry("image", "pull", image["id"], str(copy), "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["verified"]
    assert sha256(copy) == sha256(disk_images["added"])
    assert copy.stat().st_blocks * 512 < copy.stat().st_size / 2, "holes were not kept"

    # A pull that was broken off goes on: what is there is not asked for again.
    part = tmp_path / f"more.raw.{image['id']}.part"
    half = copy.stat().st_size // 2
    with open(copy, "rb") as whole:
        part.write_bytes(whole.read(half))
    resumed = service.quarry("image", "pull", "pushed", str(tmp_path / "more.raw"), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["resumed_bytes"] > 0
    assert sha256(tmp_path / "more.raw") == sha256(disk_images["added"])

    # What another image on this machine has in common with it is not fetched, in the way of `push`.
    sibling = service.quarry("image", "push", disk_images["base"], "--name", "sibling", "--json")
    assert sibling.returncode == 0, sibling.stderr
    of_sibling = service.quarry("image", "pull", "sibling", str(tmp_path / "sibling.raw"),
                                "--from", str(copy), "--json")
    assert of_sibling.returncode == 0, of_sibling.stderr
    moved = json.loads(of_sibling.stdout)
    assert moved["bytes_already_here"] > 0
    data = moved["bytes_total"] - moved["bytes_zero"]
    assert moved["bytes_fetched"] < data - moved["bytes_already_here"], "frames are smaller"
    assert sha256(tmp_path / "sibling.raw") == sha256(disk_images["base"])

    listed = service.quarry("image", "ls")
    assert image["id"] in listed.stdout
    assert service.quarry("image", "rm", image["id"]).returncode == 0
    assert image["id"] not in service.quarry("image", "ls").stdout
    missing = service.quarry("image", "rm", "no-such-image")
    assert missing.returncode == 1 and "no image 'no-such-image'" in missing.stderr
