"""Upload and download of 2 GiB with curl: Quarry, Glance, and nginx for downloads."""

import time

from machine import digest_rate
from system import (MIB, Failed, Server, free_port, install, listening, random_file, run, settle,
                    warm)

SIZE = 2048 * MIB
IDLE_SECONDS = 0.5  # a server that uses next to no CPU for so long has finished its work


class Nginx:
    """Static files by sendfile from the directory of the inputs: the bound for downloads."""

    name = "nginx"

    def __init__(self, directory, root):
        install(["nginx-light"])
        home = directory / "nginx"
        home.mkdir()
        self.port = free_port()
        config = home / "nginx.conf"
        config.write_text(f"""
user root; worker_processes 2; pid {home}/pid; error_log {home}/error.log; daemon off;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; sendfile_max_chunk 2m;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{ listen 127.0.0.1:{self.port}; root {root}; }}
}}
""")
        self._server = Server("nginx", ["nginx", "-p", home, "-e", home / "error.log",
                                        "-c", config], home)
        self._server.wait_until(lambda: listening(self.port))

    def cpu_seconds(self):
        return self._server.cpu_seconds()

    def stop(self):
        self._server.stop()


def inputs(context):
    """The files that are sent, all of the same size: name -> path."""
    folder = context.work / "inputs"
    folder.mkdir(exist_ok=True)
    disk = folder / "disk"
    if not disk.exists():
        run("cp", "--sparse=always", "--reflink=auto", context.image("full"), disk)
    if disk.stat().st_size != SIZE:
        raise Failed(f"the image 'full' has {disk.stat().st_size} bytes, not {SIZE}")
    random = random_file(folder / "random", SIZE)
    with open(folder / "zero", "wb") as zero:
        zero.truncate(SIZE)
    return {"random": random, "disk": disk, "zero": folder / "zero"}


def curl(*args):
    """Runs curl; (status, seconds, bytes downloaded)."""
    done = run("curl", "-sS", "-o", "/dev/null", "-w",
               "%{http_code} %{time_total} %{size_download}", *args, timeout=600)
    status, seconds, size = done.stdout.split()
    return int(status), float(seconds), int(size)


def wait_idle(service, limit_seconds=120):
    """Lets background work of an upload come to its end, so that its CPU time is counted."""
    deadline = time.monotonic() + limit_seconds
    before = service.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(IDLE_SECONDS)
        now = service.cpu_seconds()
        if now - before <= 0.02 * IDLE_SECONDS + 0.01:
            return
        before = now


def upload(service, image, path):
    """(seconds, server CPU seconds with whatever it does afterwards)."""
    cloud = service.cloud
    settle()
    before = service.cpu_seconds()
    status, seconds, _ = curl("-X", "PUT", "-T", path, "-H", f"X-Auth-Token: {cloud.token}", "-H",
                              "Content-Type: application/octet-stream", "-H", "Expect:",
                              cloud.file_url(image))
    if status != 204:
        raise Failed(f"{service.name} answered {status} to the upload of {path.name}")
    wait_idle(service)
    return seconds, service.cpu_seconds() - before


def download(service, url, size, headers=()):
    before = service.cpu_seconds()
    status, seconds, received = curl(*headers, url)
    if status != 200 or received != size:
        raise Failed(f"{service.name} answered {status} with {received} of {size} bytes")
    return seconds, service.cpu_seconds() - before


def token_header(service):
    return ["-H", f"X-Auth-Token: {service.cloud.token}"]


def verify(service, image, path):
    """Every byte comes back: compared once, outside the measured time."""
    process = run("bash", "-c", 'set -o pipefail; curl -sS -H "X-Auth-Token: $1" "$2" | cmp - "$3"',
                  "-", service.cloud.token, service.cloud.file_url(image), path, check=False)
    if process.returncode != 0:
        raise Failed(f"{service.name} returned other bytes for {path.name}: {process.stderr}")


class Round:
    """One round: every contender in turn for each kind of data, the order rotating."""

    def __init__(self, figures, services, nginx, files, number):
        self._figures, self._nginx, self._files, self._number = figures, nginx, files, number
        turn = number % len(services)
        self._services = services[turn:] + services[:turn]

    def _add(self, what, service, seconds, cpu):
        rate = SIZE / MIB / seconds
        self._figures.add("transfer", what, "MiB/s", service.name, rate)
        self._figures.add("transfer", f"{what}, elapsed", "s", service.name, seconds)
        self._figures.add("transfer", f"{what}, server CPU", "s", service.name, cpu)

    def _upload_all(self, what, path):
        images = {}
        for service in self._services:
            images[service] = service.cloud.create_image(what)
            self._add(f"upload {what}", service, *upload(service, images[service], path))
        return images

    def _download_all(self, kind, images, path):
        for service, image in images.items():
            self._add(f"download {kind}", service, *download(
                service, service.cloud.file_url(image), SIZE, token_header(service)))
        url = f"http://127.0.0.1:{self._nginx.port}/{path.name}"
        self._add(f"download {kind}", self._nginx, *download(self._nginx, url, SIZE))

    def run(self):
        for service in self._services:
            service.cloud.log_in()
        for kind, path in self._files.items():
            warm(path)
            images = [self._upload_all(kind, path)]
            self._download_all(kind, images[0], path)
            if kind == "random":
                self._download_all("random again", images[0], path)
                images.append(self._upload_all("known", path))
            if self._number == 0:
                for service, image in images[0].items():
                    verify(service, image, path)
            for made in images:
                for service, image in made.items():
                    service.cloud.delete_image(image)


def measure(context, figures):
    files = inputs(context)
    figures.note("transfer: 2 GiB by curl over loopback, inputs in the page cache; 'known' is the "
                 "random file sent again; server CPU counts all processes of the service (Glance "
                 "with its Keystone, database and cache) until they are idle again")
    figures.note("transfer: Glance leaves an upload in the page cache, Quarry syncs it to disk "
                 "before it answers; every round starts Quarry on an empty directory")
    figures.note("transfer: Quarry writes past the page cache, so that its first download of "
                 "random data reads the disk where the others' lies in memory; 'random again' is "
                 "in memory for all")
    nginx = Nginx(context.work, context.work / "inputs")
    context.stack.callback(nginx.stop)
    glance = context.openstack()
    for number in context.rounds("transfer"):
        figures.add("machine", "SHA-256", "MiB/s", "one core", digest_rate("sha256"))
        with context.fresh_quarry() as quarry:
            services = [service for service in (quarry, glance) if service]
            Round(figures, services, nginx, files, number).run()
    nginx.stop()
