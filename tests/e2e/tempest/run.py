#!/usr/bin/python3
"""Runs Tempest's image, identity and volume suites against a cloud and holds the result to a list.

    tests/e2e/tempest/run.py --quarry build/release/bin/quarry    a fresh Quarry of its own
    tests/e2e/tempest/run.py --clouds FILE                        a cloud that runs already
    tests/e2e/tempest/run.py --real                               Debian's Keystone and Glance
                                                                  (no volumes)

Prints the counts, then every failure with its first error line, and writes all of it as JSON. A
failure that is not in the list of known ones (expected.json, each with its reason) is an error, and
so is a listed test that passes: exit code 1. Tempest comes from Debian's packages.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "bench/peers"))

from cloud import Cloud
from openstack import OpenStack
from quarry import Quarry
from system import Failed, free_port, install, prepare_process, say, work_directory

SUITES = [r"^tempest\.api\.image\.v2", r"^tempest\.api\.identity\.(admin\.)?v3",
          r"^tempest\.api\.volume"]
PACKAGES = ["tempest", "python3-tempest", "python3-subunit", "python3-testtools", "python3-yaml"]

# What to test beyond Tempest's defaults: all of it but a second image endpoint with workers of its
# own, a second back end of volumes, and what needs a compute service. What a cloud does not offer
# is then a failure with its reason, not a silent skip.
# What the suites want to try and nobody wants as a default: quick lockouts, a password history, and
# web-download from the suite's own server on loopback.
QUARRY_OPTIONS = ["--identity.lockout-failures=2", "--identity.lockout-duration=5s",
                  "--identity.unique-last-passwords=2", "--import.allowed-ports=80,443,{port}",
                  "--import.allowed-networks=127.0.0.0/8", "--block.backup-dir={work}/backups"]

FEATURES = {
    "image-feature-enabled": {"import_image": "true", "os_glance_reserved": "true",
                              "manage_locations": "true"},
    "image": {"image_caching_enabled": "true"},
    "identity-feature-enabled": {
        "trust": "true", "security_compliance": "true", "project_tags": "true",
        "application_credentials": "true", "access_rules": "true",
        "domain_specific_drivers": "false"},
    "identity": {"user_lockout_failure_attempts": 2, "user_lockout_duration": 5,
                 "user_unique_last_password_count": 2},
    "volume": {"min_microversion": "3.0", "max_microversion": "latest",
               "vendor_name": "Quarry", "storage_protocol": "NBD", "build_timeout": 60},
    "volume-feature-enabled": {"manage_snapshot": "true", "manage_volume": "true"},
    "service_available": {"glance": "true", "cinder": "true", "nova": "false",
                          "neutron": "false", "swift": "false", "horizon": "false"},
}


def write_config(cloud, workspace, image_url):
    """tempest.conf for dynamic credentials made by this cloud's admin."""
    sections = {name: dict(options) for name, options in FEATURES.items()}
    sections["auth"] = {
        "use_dynamic_credentials": "true", "admin_username": cloud.auth["username"],
        "admin_password": cloud.auth["password"], "admin_project_name": cloud.auth["project_name"],
        "admin_domain_name": cloud.auth.get("user_domain_name", "Default")}
    sections["identity"].update({"uri_v3": cloud.identity, "auth_version": "v3",
                                 "region": cloud.region, "v3_endpoint_type": "public"})
    if image_url:
        sections["image"]["http_image"] = image_url
    if offers(cloud, "block-storage"):
        sections["compute"] = {"image_ref": upload_image(cloud)}
    else:
        sections["service_available"]["cinder"] = "false"
    sections["oslo_concurrency"] = {"lock_path": workspace / "locks"}
    sections["DEFAULT"] = {"log_file": workspace / "tempest.log"}
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    config = workspace / "tempest.conf"
    config.touch(0o600)
    config.write_text("\n".join(lines))
    return config


def offers(cloud, service_type):
    try:
        return bool(cloud.endpoint(service_type))
    except Failed:
        return False


def upload_image(cloud):
    """A public image to make volumes of; its id."""
    _, image = cloud.call("POST", f"{cloud.image}/images", {
        "name": "tempest", "disk_format": "raw", "container_format": "bare",
        "visibility": "public"})
    cloud.call("PUT", cloud.file_url(image["id"]), os.urandom(1 << 20),
               headers={"Content-Type": "application/octet-stream"})
    return image["id"]


def run_suites(workspace, config, suites, workers):
    """Runs the tests; the results, by test, as (status, text of the error)."""
    import tempest
    package = Path(tempest.__file__).parent
    (workspace / ".stestr.conf").write_text(
        f"[DEFAULT]\ntest_path={package}/test_discover\ntop_dir={package.parent}\n"
        "group_regex=([^\\.]*\\.)*\n")
    env = dict(os.environ, TEMPEST_CONFIG_DIR=str(config.parent), TEMPEST_CONFIG=config.name,
               HOME=str(workspace), PYTHON="/usr/bin/python3", OS_TEST_TIMEOUT="600")
    stream = workspace / "results.subunit"
    with open(stream, "wb") as out, open(workspace / "stestr.log", "wb") as errors:
        process = subprocess.Popen(
            ["stestr", "run", "--subunit", "--concurrency", str(workers), "|".join(suites)],
            cwd=workspace, env=env, stdout=out, stderr=errors, stdin=subprocess.DEVNULL,
            start_new_session=True)
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, 15)
            process.wait()
            raise
    results = read_results(stream)
    if not results:
        raise Failed(f"no test ran:\n{(workspace / 'stestr.log').read_text()[-2000:]}")
    return results


def read_results(stream):
    import subunit
    import testtools
    results = {}

    def finished(test):
        if test["status"] in ("exists", "unknown"):
            return
        text = "\n".join(detail.as_text() for name, detail in test["details"].items()
                         if name.startswith(("traceback", "reason")))
        results[re.sub(r"\[.*\]$", "", test["id"])] = (test["status"], text)
    collector = testtools.StreamToDict(finished)
    with open(stream, "rb") as source:
        collector.startTestRun()
        subunit.ByteStreamToStreamResult(source, non_subunit_name="stdout").run(collector)
        collector.stopTestRun()
    return results


def error_line(text):
    """The line of a traceback that names the error, and what the server said if that is told."""
    lines = [line.strip() for line in text.splitlines() if line and not line.startswith(" ")]
    lines = [line for line in lines if not line.startswith("Traceback")]
    found = lines[0] if lines else "(no text)"
    details = next((line for line in lines[1:] if line.startswith("Details:")), "")
    return f"{found} {details}".strip()[:300]


def suite_of(test):
    name = test.partition("(")[2] or test
    return next((suite for suite in ("identity", "image", "volume") if f".api.{suite}." in name),
                "other")


def report(results, known, out):
    """Prints the outcome; true when it is what the list says."""
    bad = {t: error_line(text) for t, (status, text) in results.items() if status == "fail"}
    for suite in sorted({suite_of(test) for test in results}):
        count = Counter(status for test, (status, _) in results.items() if suite_of(test) == suite)
        print(f"{suite}: {sum(count.values())} tests, {count['success']} passed, "
              f"{count['skip']} skipped, {count['fail']} failed")
    for test, (status, text) in sorted(results.items()):
        if status == "skip":
            print(f"  skipped {test}: {text.strip().splitlines()[0] if text.strip() else ''}")
    for test, line in sorted(bad.items()):
        print(f"  failed {test}\n    {line}")
        if test in known:
            print(f"    known: {known[test]}")
    unknown = sorted(set(bad) - set(known))
    healed = sorted(t for t in known if results.get(t, ("",))[0] == "success")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({
            "counts": Counter(status for status, _ in results.values()),
            "failed": bad, "not_expected": unknown, "passed_but_listed": healed,
            "skipped": sorted(t for t, (status, _) in results.items() if status == "skip"),
            "passed": sorted(t for t, (status, _) in results.items() if status == "success"),
        }, indent=1, sort_keys=True) + "\n")
    for test in unknown:
        print(f"error: {test} failed and is not in the list of known failures")
    for test in healed:
        print(f"error: {test} passed: take it off the list of known failures")
    return not unknown and not healed


@contextlib.contextmanager
def image_source(directory, port):
    """A small web server on loopback, so that web-download has something to fetch."""
    (directory / "image").mkdir()
    (directory / "image/small.img").write_bytes(os.urandom(1 << 20))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    handler = functools.partial(Quiet, directory=directory / "image")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/small.img"
    finally:
        server.shutdown()


def open_cloud(arguments, work, stack):
    """(the cloud to test, the address web-download shall fetch or None for Tempest's own)."""
    url = arguments.http_image
    if arguments.clouds:
        return Cloud(arguments.clouds), url
    port = free_port()
    url = url or stack.enter_context(image_source(work, port))
    if arguments.real:
        service = OpenStack(work, ROOT / "build/bench/packages", port)
    else:
        options = [option.replace("{port}", str(port)).replace("{work}", str(work))
                   for option in [*QUARRY_OPTIONS, *arguments.option]]
        service = Quarry(arguments.quarry.resolve(), work, options)
    stack.callback(service.stop)
    return service.cloud, url


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--quarry", type=Path, metavar="BIN", help="start this, test it")
    which.add_argument("--clouds", type=Path, metavar="FILE", help="test the cloud in this file")
    which.add_argument("--real", action="store_true", help="test Debian's Keystone and Glance")
    parser.add_argument("--option", action="append", default=[], metavar="--NAME=VALUE",
                        help="a further option for Quarry; {port} is the image source's port")
    parser.add_argument("--http-image", metavar="URL", help="what web-download shall fetch")
    parser.add_argument("--expected", type=Path, help="the list of known failures")
    parser.add_argument("--json", type=Path, help="where to write the results",
                        default=ROOT / "build/tempest.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("suites", nargs="*", default=SUITES, help="regular expressions")
    arguments = parser.parse_args()
    prepare_process()
    expected = arguments.expected or HERE / ("expected-real.json" if arguments.real
                                             else "expected.json")
    known = json.loads(expected.read_text())["failures"]
    try:
        install(PACKAGES)
        with work_directory(ROOT / "build/bench") as work, contextlib.ExitStack() as stack:
            cloud, url = open_cloud(arguments, work, stack)
            workspace = work / "tempest"
            workspace.mkdir()
            say(f"running {' and '.join(arguments.suites)} against {cloud.identity}")
            config = write_config(cloud, workspace, url)
            results = run_suites(workspace, config, arguments.suites, arguments.workers)
    except Failed as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(0 if report(results, known, arguments.json) else 1)


if __name__ == "__main__":
    main()
