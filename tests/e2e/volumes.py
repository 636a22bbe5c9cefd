"""The Block Storage API of a running service, for tests."""

import re
import time

from service import call

WAIT_SECONDS = 60


class Volumes:
    """The Block Storage API as one user, with the newest microversion."""

    def __init__(self, service, token=None, base=None):
        self.service = service
        self.url = (base or service.base) + "/volume/v3"
        self.headers = {"X-Auth-Token": token or service.token(), "Accept": "application/json",
                        "OpenStack-API-Version": "volume 3.71"}

    def call(self, method, path, body=None, **kwargs):
        return call(method, self.url + path, body, self.headers, **kwargs)

    def ok(self, method, path, body=None):
        """A call that must succeed: its body, or None."""
        reply = self.call(method, path, body)
        assert reply.status < 300, (method, path, body, reply.status, reply.body)
        return reply.json() if reply.body else None

    def lift_quotas(self):
        """As an administrator: his project may have as many as it wants."""
        projects = call("GET", self.service.base + "/identity/v3/projects?name=admin", None,
                        self.headers).json()["projects"]
        self.ok("PUT", f"/os-quota-sets/{projects[0]['id']}",
                {"quota_set": {"volumes": -1, "gigabytes": -1, "snapshots": -1}})

    def wait(self, kind, item_id, *statuses):
        """Waits until a volume or snapshot is in one of these; None: until it is gone."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            reply = self.call("GET", f"/{kind}s/{item_id}")
            if reply.status == 404 and None in statuses:
                return None
            assert reply.status == 200, (kind, item_id, reply.status, reply.body)
            item = reply.json()[kind]
            if item["status"] in statuses:
                return item
            assert "error" not in item["status"] and time.monotonic() < deadline, item
            time.sleep(0.02)

    def create(self, size_gb=1, **fields):
        """A volume that is there: its id."""
        made = self.ok("POST", "/volumes", {"volume": {"size": size_gb, **fields}})["volume"]
        self.wait("volume", made["id"], "available")
        return made["id"]

    def delete(self, volume_id):
        self.ok("DELETE", f"/volumes/{volume_id}")
        self.wait("volume", volume_id, None)

    def snapshot(self, volume_id, **fields):
        """A snapshot that is there, also of a volume in use: its id."""
        made = self.ok("POST", "/snapshots",
                       {"snapshot": {"volume_id": volume_id, "force": True, **fields}})
        self.wait("snapshot", made["snapshot"]["id"], "available")
        return made["snapshot"]["id"]

    def attach(self, volume_id, host="here"):
        """Attaches as a compute host does: the attachment's id, and how to connect."""
        made = self.ok("POST", "/attachments", {"attachment": {
            "volume_uuid": volume_id, "connector": {"host": host}}})["attachment"]
        self.ok("POST", f"/attachments/{made['id']}/action", {"os-complete": {}})
        return made["id"], made["connection_info"]

    def detach(self, attachment_id):
        self.ok("DELETE", f"/attachments/{attachment_id}")

    def written_bytes(self, volume_id):
        """What clients have written to it since the service was started."""
        text = call("GET", self.service.base + "/metrics").body.decode()
        metric = re.escape(f'quarry_nbd_written_bytes_total{{volume="{volume_id}"}}')
        found = re.search(rf"^{metric} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0

    def wait_for_writes(self, volume_id, more_than=0):
        deadline = time.monotonic() + WAIT_SECONDS
        while self.written_bytes(volume_id) <= more_than:
            assert time.monotonic() < deadline, f"nobody writes to volume {volume_id}"
            time.sleep(0.02)

    def list(self, kind, query=""):
        """All of a kind, page after page."""
        items, marker = [], ""
        while True:
            page = self.ok("GET", f"/{kind}?limit=1000{query}{marker}")[kind.split("/")[0]]
            items += page
            if len(page) < 1000:
                return items
            marker = "&marker=" + page[-1]["id"]


def keep_nbd_port(service):
    """From now on clients find its NBD server at one place, over its starts."""
    volumes = Volumes(service)
    volume = volumes.create()
    attachment, connection = volumes.attach(volume)
    service.options.append(f"--block.nbd-listen=127.0.0.1:{connection['port']}")
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.delete(volume)
    assert service.stop() == 0
    service.start()
