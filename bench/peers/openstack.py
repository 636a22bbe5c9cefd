#!/usr/bin/python3
"""The real Keystone and Glance from Debian's packages, started privately beside everything else.

    bench/peers/openstack.py [--dir DIR]      starts them, prints where clouds.yaml lies, waits

MariaDB, memcached and two uWSGI servers (4 processes of 32 threads each, the rest of the settings
as Debian ships them) with the file store. Libraries are installed as packages; the service packages
themselves are only unpacked, so no service is registered or started and /etc stays as it is.
"""

import argparse
import configparser
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cloud import Cloud, write_clouds_yaml
from system import (Server, free_port, install, listening, prepare_process, run, say, unpack,
                    work_directory)

LIBRARIES = ["python3-keystone", "python3-glance", "python3-pymysql", "python3-memcache",
             "python3-openstackclient", "python3-yaml", "uwsgi-core", "uwsgi-plugin-python3",
             "mariadb-server-core", "mariadb-client-core", "memcached"]
PROCESSES, THREADS = 4, 32


def write_ini(path, sections):
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in options.items()), ""]
    path.write_text("\n".join(lines))
    return path


class OpenStack:
    """Keystone and Glance with what they need. Start on construction; stop() ends all of it."""

    name = "glance"

    def __init__(self, directory, cache, image_source_port=None):
        """`directory` is private to this instance; `cache` keeps unpacked packages.

        `image_source_port` is for test suites: web-download may fetch from that loopback port,
        and everything optional is on (image cache, visible locations, metadata definitions)."""
        install(LIBRARIES)
        cache.mkdir(parents=True, exist_ok=True)
        self._keystone_files = unpack("keystone", cache)
        self._glance_files = unpack("glance-api", cache)
        self._glance_common = unpack("glance-common", cache)
        self.directory = directory
        self.servers = []
        self._password = secrets.token_urlsafe(18)
        self._image_source_port = image_source_port
        # A socket's path has to be short, wherever the work directory is.
        self._sockets = Path(tempfile.mkdtemp(prefix="peers-"))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        say("starting MariaDB and memcached")
        self._start_database()
        self._memcached = free_port()
        memcached = self._serve("memcached", ["memcached", "-l", "127.0.0.1", "-p",
                                              self._memcached, "-u", "root", "-m", "256"])
        memcached.wait_until(lambda: listening(self._memcached))
        say("making Keystone's tables and starting it")
        self._start_keystone()
        say("making Glance's tables and starting it")
        self._start_glance()
        self.cloud = Cloud(self.clouds_yaml)

    def _serve(self, name, args, env=None):
        server = Server(name, args, self.directory, env)
        self.servers.append(server)
        return server

    # ---- database

    def _start_database(self):
        data, socket = self.directory / "mariadb", self._sockets / "sql"
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        database = self._serve("mariadbd", [
            "mariadbd", "--no-defaults", f"--datadir={data}", "--user=root", f"--socket={socket}",
            "--skip-networking", f"--pid-file={self._sockets / 'sql.pid'}",
            "--max-connections=1000", "--innodb-buffer-pool-size=256M"])
        database.wait_until(lambda: run("mariadb", "--no-defaults", "-S", socket, "-uroot", "-e",
                                        "select 1", check=False).returncode == 0)
        for name in ("keystone", "glance"):
            run("mariadb", "--no-defaults", "-S", socket, "-uroot", "-e",
                f"create database {name} character set utf8")

    def _connection(self, database):
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self._sockets / 'sql'}"

    # ---- uWSGI

    def _uwsgi(self, service, shipped, port, wsgi_file, env):
        """A uWSGI server as Debian's ini has it; only users, places and counts are ours."""
        settings = configparser.RawConfigParser(strict=False)
        settings.optionxform = str
        settings.read(shipped)
        ours = dict(settings["uwsgi"])
        for key in ("uid", "gid", "logto", "apparmor-profile", "chmod-socket"):
            ours.pop(key, None)
        # Without this, clients keep a connection after a 204 that uWSGI is about to close.
        ours["add-header"] = "Connection: close"
        ours.update({"plugins": "python3", "processes": PROCESSES, "threads": THREADS,
                     "http-socket": f"127.0.0.1:{port}", "chdir": self.directory / service,
                     "wsgi-file": wsgi_file, "disable-logging": "true",
                     "need-app": "true"})
        ini = write_ini(self.directory / service / "uwsgi.ini", {"uwsgi": ours})
        server = self._serve(service, ["uwsgi", "--ini", ini], env)
        server.wait_until(lambda: server.log.read_text().count("WSGI app 0") >= PROCESSES)
        return server

    # ---- Keystone

    def _start_keystone(self):
        home = self.directory / "keystone-api"
        home.mkdir()
        port = free_port()
        auth_url = f"http://127.0.0.1:{port}/v3"
        # On a busy machine a worker may cache that a user has no role just as another worker gives
        # it one; a benchmark never does that, a test suite does it all the time.
        cache_assignments = "false" if self._image_source_port else "true"
        config = write_ini(home / "keystone.conf", {
            "role": {"caching": cache_assignments},  # who has which role is cached there
            "DEFAULT": {"log_file": home / "log"},
            "database": {"connection": self._connection("keystone")},
            "cache": {"enabled": "true", "backend": "dogpile.cache.memcached",
                      "memcache_servers": f"127.0.0.1:{self._memcached}"},
            "fernet_tokens": {"key_repository": home / "tokens"},
            "fernet_receipts": {"key_repository": home / "receipts"},
            "credential": {"key_repository": home / "credentials"},
            "oslo_policy": {"policy_dirs": self._keystone_files / "etc/keystone/policy.d"},
            # What the identity suite's tests of locking out and of old passwords expect.
            "security_compliance": {"lockout_failure_attempts": 2, "lockout_duration": 5,
                                    "unique_last_password_count": 2},
        })
        manage = ["keystone-manage", "--config-file", config]
        owner = ["--keystone-user", "root", "--keystone-group", "root"]
        run(*manage, "db_sync")
        for keys in ("fernet_setup", "receipt_setup", "credential_setup"):
            run(*manage, keys, *owner)
        run(*manage, "bootstrap", "--bootstrap-password", self._password,
            "--bootstrap-region-id", "RegionOne", "--bootstrap-admin-url", auth_url,
            "--bootstrap-internal-url", auth_url, "--bootstrap-public-url", auth_url)
        self.keystone = self._uwsgi("keystone-api",
                                    self._keystone_files / "etc/keystone/keystone-uwsgi.ini",
                                    port, "/usr/bin/keystone-wsgi-public",
                                    {"OS_KEYSTONE_CONFIG_FILES": str(config)})
        self.clouds_yaml = write_clouds_yaml(self.directory / "clouds.yaml", "real", auth_url,
                                             self._password)

    # ---- Glance

    def _start_glance(self):
        home = self.directory / "glance-api"
        for folder in ("images", "more", "staging", "tasks", "cache", "locks"):
            (home / folder).mkdir(parents=True)
        port = free_port()
        auth_url, service_password = self._register_glance(port)
        sections = self._glance_sections(home, auth_url, service_password)
        if self._image_source_port:
            sections["DEFAULT"].update({"image_cache_dir": home / "cache",
                                        "show_multiple_locations": "true"})
            sections["paste_deploy"]["flavor"] = "keystone+cachemanagement"
        config = write_ini(home / "glance-api.conf", sections)
        # Glance reads these files, by these names, from one directory.
        shutil.copy(self._glance_common / "usr/share/glance-common/glance-api-paste.ini", home)
        if self._image_source_port:
            write_ini(home / "glance-image-import.conf", {"import_filtering_opts": {
                "allowed_hosts": "[127.0.0.1]",
                "allowed_ports": [80, 443, port, self._image_source_port]}})
        manage = ["/usr/bin/python3", self._glance_common / "usr/bin/glance-manage",
                  "--config-file", config]
        run(*manage, "db_sync")
        if self._image_source_port:
            run(*manage, "db_load_metadefs",
                self._glance_common / "usr/share/glance-common/metadefs")
        self.glance = self._uwsgi("glance-api",
                                  self._glance_files / "etc/glance/glance-api-uwsgi.ini", port,
                                  self._glance_common / "usr/bin/glance-wsgi-api",
                                  {"OS_GLANCE_CONFIG_DIR": str(home)})

    def _glance_sections(self, home, auth_url, service_password):
        methods = "[glance-direct,web-download,glance-download,copy-image]"
        return {
            "DEFAULT": {"log_file": home / "log", "node_staging_uri": f"file://{home}/staging",
                        "enabled_backends": "first:file,second:file,web:http",
                        "enabled_import_methods": methods},
            "database": {"connection": self._connection("glance")},
            "glance_store": {"default_backend": "first"},
            "first": {"filesystem_store_datadir": home / "images"},
            "second": {"filesystem_store_datadir": home / "more"},
            "os_glance_staging_store": {"filesystem_store_datadir": home / "staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": home / "tasks"},
            "keystone_authtoken": {
                "www_authenticate_uri": auth_url, "auth_url": auth_url, "auth_type": "password",
                "memcached_servers": f"127.0.0.1:{self._memcached}", "username": "glance",
                "password": service_password, "project_name": "service",
                "user_domain_name": "Default", "project_domain_name": "Default",
                "region_name": "RegionOne"},
            "paste_deploy": {"flavor": "keystone"},
            "oslo_concurrency": {"lock_path": home / "locks"},
            "oslo_policy": {"policy_dirs": self._glance_common / "etc/glance/policy.d"},
            "task": {"work_dir": home / "tasks"},
        }

    def _register_glance(self, port):
        """Glance's user and its place in the catalog; (auth_url, the user's password)."""
        keystone = Cloud(self.clouds_yaml)
        url, password = keystone.identity, secrets.token_urlsafe(18)
        make = lambda kind, what: keystone.call("POST", f"{url}/{kind}s", {kind: what})[1][kind]
        project = make("project", {"name": "service", "domain_id": "default"})
        user = make("user", {"name": "glance", "domain_id": "default", "password": password})
        role, = keystone.call("GET", f"{url}/roles?name=admin")[1]["roles"]
        keystone.call("PUT", f"{url}/projects/{project['id']}/users/{user['id']}"
                             f"/roles/{role['id']}")
        service = make("service", {"name": "glance", "type": "image"})
        for interface in ("public", "internal", "admin"):
            make("endpoint", {"service_id": service["id"], "interface": interface,
                              "url": f"http://127.0.0.1:{port}", "region_id": "RegionOne"})
        return url.removesuffix("/v3"), password

    # ---- the life of it

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers)

    def image_file(self, image):
        """Where the file store keeps an image's bytes."""
        return self.directory / "glance-api/images" / image

    def stop(self):
        for server in reversed(self.servers):
            server.stop()
        self.servers = []
        shutil.rmtree(self._sockets, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("build/bench"))
    parser.add_argument("--image-source-port", type=int,
                        help="a loopback port that web-download may fetch from")
    arguments = parser.parse_args()
    prepare_process()
    parent = arguments.dir.resolve()
    with work_directory(parent) as work, contextlib.ExitStack() as stack:
        service = OpenStack(work, parent / "packages", arguments.image_source_port)
        stack.callback(service.stop)
        print(f"clouds.yaml: {service.clouds_yaml}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
