"""Small requests a second with 8 clients: show, list of ten, token validation and issue."""

import json
import re

from system import Failed, install, run

CLIENTS = 8
SECONDS = 4


def wrk(url, headers, seconds=SECONDS, script=None):
    """(requests a second, requests); an answer other than 2xx is an error."""
    args = ["wrk", "-t", "1", "-c", CLIENTS, "-d", f"{seconds}s", "--timeout", "30s"]
    if script:
        args += ["-s", script]
    for name, value in headers.items():
        args += ["-H", f"{name}: {value}"]
    said = run(*args, url).stdout
    if "Non-2xx" in said:
        raise Failed(f"wrk saw errors at {url}:\n{said}")
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", said, re.M)
    count = re.search(r"^\s+(\d+) requests in", said, re.M)
    return float(rate[1]), int(count[1])


def prepare(service):
    """Ten small images; the requests to measure: name -> (url, headers, wrk script)."""
    cloud = service.cloud
    images = [cloud.create_image(f"rate-{number}") for number in range(10)]
    for image in images:
        cloud.call("PUT", cloud.file_url(image), b"x" * 1024,
                   headers={"Content-Type": "application/octet-stream"})
    token = {"X-Auth-Token": cloud.token, "Accept": "application/json"}
    script = service.directory / "issue.lua"
    script.touch(0o600)
    script.write_text('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                      f"wrk.body = {json.dumps(json.dumps(cloud.login_body()))}\n")
    tokens = f"{cloud.identity}/auth/tokens"
    return {
        "show image": (f"{cloud.image}/images/{images[0]}", token, None),
        "list of ten": (f"{cloud.image}/images?limit=10", token, None),
        "validate token": (tokens, {**token, "X-Subject-Token": cloud.token}, None),
        "issue token": (tokens, {"Accept": "application/json"}, script),
    }


def measure(context, figures):
    install(["wrk"])
    figures.note(f"rates: wrk with {CLIENTS} connections and one thread on the same machine, "
                 "keep-alive where the server allows it (Debian's uWSGI settings for Glance and "
                 "Keystone close after each answer); column 'glance' is Keystone for tokens")
    with context.fresh_quarry() as quarry:
        services = [service for service in (quarry, context.openstack()) if service]
        requests = {service: prepare(service) for service in services}
        for service in services:  # every worker has seen every kind of request
            for url, headers, script in requests[service].values():
                wrk(url, headers, 1, script)
        for number in context.rounds("rates"):
            for what in requests[services[0]]:
                turn = number % len(services)
                for service in services[turn:] + services[:turn]:
                    before = service.cpu_seconds()
                    rate, count = wrk(*requests[service][what][:2], SECONDS,
                                      requests[service][what][2])
                    cpu = (service.cpu_seconds() - before) / count * 1000
                    figures.add("rates", what, "/s", service.name, rate)
                    figures.add("rates", f"{what}, server CPU", "ms", service.name, cpu)
