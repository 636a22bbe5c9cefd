#!/usr/bin/python3
"""Runs a command beside a fresh Ceph cluster, which ends with it:

    with_cluster.py [--osds N] [--size N] ... COMMAND [ARGUMENT...]

The command finds the cluster by CEPH_CONF, and may break it with
`$CEPH_TOOL start|kill osd.0` (see ceph.py).
"""

import argparse
import signal
import subprocess
import sys

import ceph


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    ceph.add_up_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command given")
    # What ctest sends to a test that is late: the cluster must end all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with ceph.temporary_cluster(**ceph.up_options(arguments)) as cluster:
            tool = f"{sys.executable} {ceph.__file__} --dir {cluster.folder}"
            environment = {**cluster.environment(), "CEPH_TOOL": tool}
            return subprocess.run(arguments.command, check=False, env=environment).returncode
    except ceph.ClusterError as error:
        print(f"with_cluster.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
