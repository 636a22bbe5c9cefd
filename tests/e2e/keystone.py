"""A real Keystone for a test: Debian's python3-keystone over SQLite, in a directory of its own.

Nothing is registered and nothing outside the directory changes. It serves by the small server that
Keystone itself brings for testing: one request at a time, which is enough to ask whether we get on.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import time

from service import call

PYTHON = "/usr/bin/python3"
MANAGE = "/usr/bin/keystone-manage"
SERVER = "/usr/bin/keystone-wsgi-public"
PACKAGE = "python3-keystone"
START_SECONDS = 60

CONFIGURATION = """[DEFAULT]
log_file = {home}/keystone.log
[database]
connection = sqlite:///{home}/keystone.db
[cache]
enabled = false
[fernet_tokens]
key_repository = {home}/tokens
[fernet_receipts]
key_repository = {home}/receipts
[credential]
key_repository = {home}/credentials
"""


def missing():
    """What to install before this works; empty if nothing."""
    return "" if os.path.exists(MANAGE) and os.path.exists(SERVER) else PACKAGE


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Keystone:
    """Made on construction, with the user admin; start() and stop() as often as one likes."""

    def __init__(self, home, password):
        self.home, self.password, self.process = str(home), password, None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self._configuration = os.path.join(self.home, "keystone.conf")
        with open(self._configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(home=self.home))
        owner = ("--keystone-user", "root", "--keystone-group", "root") if os.geteuid() == 0 else ()
        self._manage("db_sync")
        # Keystone reads by one connection while it writes by another: SQLite lets it so only.
        database = sqlite3.connect(os.path.join(self.home, "keystone.db"))
        database.execute("pragma journal_mode=wal")
        database.close()
        for keys in ("fernet_setup", "credential_setup"):
            self._manage(keys, *owner)
        urls = [f"--bootstrap-{interface}-url={self.url}"
                for interface in ("public", "internal", "admin")]
        self._manage("bootstrap", "--bootstrap-password", password,
                     "--bootstrap-region-id", "RegionOne", *urls)

    def _manage(self, *args):
        done = subprocess.run([PYTHON, MANAGE, "--config-file", self._configuration, *args],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (args, done.stdout, done.stderr)

    def start(self):
        environment = dict(os.environ, OS_KEYSTONE_CONFIG_FILES=self._configuration)
        with open(os.path.join(self.home, "server.log"), "ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, SERVER, "--host", "127.0.0.1", "--port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if call("GET", self.url, timeout=5).status == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.home, "server.log"), encoding="utf-8") as log:
                    raise RuntimeError("Keystone did not start:\n" + log.read()[-4000:])
            time.sleep(0.05)

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def variables(self, user="admin", password=None, project="admin"):
        """The environment in which stock clients are this user."""
        return {"OS_AUTH_URL": self.url, "OS_IDENTITY_API_VERSION": "3", "OS_USERNAME": user,
                "OS_PASSWORD": password or self.password, "OS_PROJECT_NAME": project,
                "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
                "OS_REGION_NAME": "RegionOne"}

    def token(self, user="admin", password=None, project="admin"):
        default = {"domain": {"id": "default"}}
        who = {"name": user, "password": password or self.password, **default}
        reply = call("POST", f"{self.url}/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": who}},
            "scope": {"project": {"name": project, **default}}}})
        assert reply.status == 201, reply.body
        return reply.headers["X-Subject-Token"]

    def revoke(self, token):
        reply = call("DELETE", f"{self.url}/auth/tokens", None,
                     {"X-Auth-Token": self.token(), "X-Subject-Token": token})
        assert reply.status == 204, reply.body

    def make_user(self, name, project, role, password="s3cret"):
        """A user with a role in a project, which is made if need be; the project's id."""
        headers = {"X-Auth-Token": self.token()}

        def ask(method, path, body=None):
            reply = call(method, f"{self.url}/{path}", body, headers)
            assert reply.status < 300, (path, reply.status, reply.body)
            return reply.json() if reply.body else None

        found = ask("GET", f"projects?name={project}")["projects"]
        project_id = found[0]["id"] if found else ask(
            "POST", "projects", {"project": {"name": project, "domain_id": "default"}}
        )["project"]["id"]
        user_id = ask("POST", "users", {"user": {"name": name, "password": password,
                                                 "domain_id": "default"}})["user"]["id"]
        role_id = ask("GET", f"roles?name={role}")["roles"][0]["id"]
        ask("PUT", f"projects/{project_id}/users/{user_id}/roles/{role_id}")
        return project_id
