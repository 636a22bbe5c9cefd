"""Starts a real `quarry serve` for a test, talks to it, and stops or kills it by pid."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

QUARRY = os.environ.get("TEST_QUARRY_BINARY", "build/release/bin/quarry")
START_SECONDS = 30
STOP_SECONDS = 40
ON_CEPH = os.environ.get("TEST_QUARRY_STORE") == "ceph"
# What a volume tells written from not written by, and changed from not changed.
GRAIN_BYTES = (4 << 20) if ON_CEPH else 4096
USER_PASSWORD = "s3cret"  # of those that tests make


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


def call(method, url, body=None, headers=None, timeout=60):
    """One request; any status is a Reply, a broken connection (or answer) an OSError."""
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        try:
            with OPENER.open(request, timeout=timeout) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer was broken off: {error!r}") from error


def store_options(data_dir):
    """Where the service keeps things: in its data directory, or, with TEST_QUARRY_STORE=ceph, in
    the cluster of CEPH_CONF (tests/cluster/with_cluster.py) under a namespace of its own."""
    if not ON_CEPH:
        return [], {}
    namespace = str(uuid.uuid5(uuid.NAMESPACE_URL, data_dir))
    return (["--store.back-end=ceph", "--ceph.pool=chunks", "--ceph.meta-pool=meta",
             "--block.rbd-pool=volumes", "--block.rbd-parent-idle=1s",
             f"--ceph.namespace={namespace}"],
            {"QUARRY_IDENTITY_ADMIN_PASSWORD": uuid.uuid5(uuid.NAMESPACE_DNS, data_dir).hex})


class Service:
    """A `quarry serve` on a free port over a data directory of its own (or a given one)."""

    def __init__(self, data_dir=None, options=(), environment=None, listen="127.0.0.1:0"):
        self.listen = listen
        self.own_dir = None
        if data_dir is None:
            self.own_dir = tempfile.TemporaryDirectory(prefix="quarry-e2e-")
            data_dir = self.own_dir.name + "/data"
        self.data_dir = data_dir
        where, variables = store_options(data_dir)
        self.options = where + list(options)
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("QUARRY_", "OS_"))} | variables
        self.environment.update(environment or {})
        self.process = None
        self.log_path = data_dir.rstrip("/") + ".log"

    def launch(self):
        """Starts the process, and waits for nothing."""
        endpoint = os.path.join(self.data_dir, "endpoint")
        if os.path.exists(endpoint):
            os.unlink(endpoint)
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [QUARRY, "serve", "--data-dir", self.data_dir, "--listen", self.listen,
             *self.options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        log.close()
        return endpoint

    def start(self):
        endpoint = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while True:
            if os.path.exists(endpoint):
                self.base = open(endpoint, encoding="utf-8").read().strip()
                try:
                    if call("GET", self.base + "/healthz", timeout=5).status == 200:
                        return self
                except OSError:
                    pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("quarry serve did not start:\n" + self.log_text()[-4000:])
            time.sleep(0.01)

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        if self.own_dir is not None:
            self.own_dir.cleanup()

    def password(self):
        import yaml
        with open(os.path.join(self.data_dir, "clouds.yaml"), encoding="utf-8") as clouds:
            return yaml.safe_load(clouds)["clouds"]["quarry"]["auth"]["password"]

    def token(self, user="admin", password=None, project="admin"):
        reply = call("POST", self.base + "/identity/v3/auth/tokens", {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": user, "domain": {"id": "default"},
                    "password": password or self.password()}}},
                "scope": {"project": {"name": project, "domain": {"id": "default"}}},
            }})
        assert reply.status == 201, reply.body
        return reply.headers["X-Subject-Token"]

    def entrance(self):
        """Where clients find it."""
        return self.base

    def as_user(self, user="admin", password=None, project="admin"):
        """The environment of one who uses it, as an openrc file makes it."""
        return {**self.environment, "OS_USERNAME": user, "OS_PROJECT_NAME": project,
                "OS_AUTH_URL": self.entrance() + "/identity/v3",
                "OS_PASSWORD": password or self.password()}

    def new_member(self, user="alice", project="red"):
        """A new user, with USER_PASSWORD, who is a member of a new project; its id."""
        headers = {"X-Auth-Token": self.token()}
        identity = self.base + "/identity/v3"

        def make(kind, **fields):
            reply = call("POST", f"{identity}/{kind}s", {kind: {"domain_id": "default", **fields}},
                         headers)
            assert reply.status == 201, reply.body
            return reply.json()[kind]["id"]

        project_id = make("project", name=project)
        user_id = make("user", name=user, password=USER_PASSWORD)
        roles = call("GET", identity + "/roles?name=member", None, headers).json()["roles"]
        reply = call("PUT", f"{identity}/projects/{project_id}/users/{user_id}/roles/"
                     f"{roles[0]['id']}", None, headers)
        assert reply.status == 204, reply.body
        return project_id

    def quarry(self, *args, **kwargs):
        """Runs the command line against this data directory."""
        return subprocess.run([QUARRY, *args, "--data-dir", self.data_dir], capture_output=True,
                              text=True, env=self.environment, stdin=subprocess.DEVNULL, **kwargs)


class Images:
    """The Image API as one user."""

    def __init__(self, service, token=None):
        self.url = service.base + "/image/v2/images"
        self.headers = {"X-Auth-Token": token or service.token(), "Accept": "application/json"}

    def call(self, method, path="", body=None, headers=None, **kwargs):
        return call(method, self.url + path, body, {**self.headers, **(headers or {})}, **kwargs)

    def create(self, name="image", **fields):
        reply = self.call("POST", "", {"name": name, "disk_format": "raw",
                                       "container_format": "bare", **fields})
        assert reply.status == 201, reply.body
        return reply.json()

    def upload(self, image_id, data):
        return self.call("PUT", f"/{image_id}/file", data,
                         {"Content-Type": "application/octet-stream"})

    def make(self, data, name="image", **fields):
        image = self.create(name, **fields)
        reply = self.upload(image["id"], data)
        assert reply.status == 204, reply.body
        return image["id"]

    def show(self, image_id):
        return self.call("GET", f"/{image_id}")

    def list(self):
        images, url = [], self.url + "?limit=1000"
        while url:
            page = call("GET", url, None, self.headers).json()
            images += page["images"]
            url = self.url.split("/v2/")[0] + page["next"] if page.get("next") else None
        return images
