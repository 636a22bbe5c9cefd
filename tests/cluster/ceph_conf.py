"""The configuration of a Ceph cluster that lives in one folder of one machine (ceph.py starts it).

Everything that Ceph would put under /etc, /var and /run is in the folder, and every address is
127.0.0.1. What is set beside that makes it start in about a second, fail fast and stay small; each
such setting says why. A person who measures should know of `paxos_*`: it makes snapshots and
changes of the map a hundred times faster than a cluster with Ceph's defaults does them.
"""

import pathlib

# The first line of a configuration that we wrote: a folder without it is not ours to touch.
MARK = "# made by `./dev ceph up`; `./dev ceph down` removes it"
# The monitor takes the first port of a window, OSDs (four each) those after it.
PORTS = 100
# Pools, and the application that each is for.
POOLS = {"chunks": "quarry", "meta": "quarry", "volumes": "rbd"}


def configuration(folder: pathlib.Path, fsid: str, port: int, *, size: int, min_size: int,
                  osd_bytes: int, auth: bool, default_paxos: bool, extra: str) -> str:
    paxos = "" if default_paxos else """
# Ceph collects changes of its maps for a second; nobody waits for others here.
paxos_propose_interval = 0.01
paxos_min_wait = 0.001
"""
    kind = "cephx" if auth else "none"
    return f"""{MARK}
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
ms_bind_ipv6 = false
ms_bind_port_min = {port + 1}
ms_bind_port_max = {port + PORTS - 1}
ms_async_op_threads = 2
auth_cluster_required = {kind}
auth_service_required = {kind}
auth_client_required = {kind}
keyring = {folder}/keyring
run_dir = {folder}/run
crash_dir = {folder}/crash
admin_socket =
log_file = {folder}/log/$name.log
log_to_stderr = false
mon_cluster_log_file = {folder}/log/cluster.log
# All OSDs are on one host: replicas on several OSDs are the best that there is.
osd_crush_chooseleaf_type = 0
osd_pool_default_size = {size}
osd_pool_default_min_size = {min_size}
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
# A hung OSD is seen within 4 s instead of 20; monitor and OSDs must both know. Less than 3 s takes
# a busy OSD for a dead one.
osd_heartbeat_interval = 1
osd_heartbeat_grace = 3
debug_ms = 0/0
debug_paxos = 0/0
debug_bdev = 0/0
debug_rocksdb = 1/1
debug_auth = 1/1
debug_osd = 1/1
debug_bluestore = 1/1

[client]
objecter_tick_interval = 1
client_mount_timeout = 10
err_to_stderr = false
rbd_cache = false
rbd_default_clone_format = 2

[mon]
mon_data = {folder}/mon
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
mon_allow_pool_delete = true
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_warn_on_insecure_global_id_reclaim = false
mon_warn_on_insecure_global_id_reclaim_allowed = false
mon_pg_warn_min_per_osd = 0
# The disk below is the developer's: the monitor must not mind that it is nearly full.
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_osd_min_down_reporters = 1
mon_osd_reporter_subtree_level = osd
mon_osd_adjust_heartbeat_grace = false
mon_osd_adjust_down_out_interval = false
mon_osd_down_out_interval = 3600
mon_tick_interval = 1
{paxos}
[osd]
osd_data = {folder}/osd.$id
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
osd_objectstore = bluestore
# A sparse file: 41 MB of it are used at first.
bluestore_block_create = true
bluestore_block_size = {osd_bytes}
bluestore_fsck_on_mkfs = false
# Starting an OSD waits for this several times.
bdev_aio_poll_ms = 20
# Little memory, a short log; but as many requests are remembered as by default (3000): by these an
# OSD knows a request that comes a second time because the answer to the first was lost.
bluestore_cache_autotune = false
bluestore_cache_size = {64 << 20}
osd_min_pg_log_entries = 100
osd_max_pg_log_entries = 200
osd_pg_log_dups_tracked = 3000
osd_memory_target = {896 << 20}
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_max_markdown_count = 1000
osd_client_watch_timeout = 5
# Scrubs come when a test asks for them.
osd_scrub_min_interval = 31536000
osd_scrub_max_interval = 63072000
osd_deep_scrub_interval = 63072000
osd_class_update_on_start = false
{extra}
"""
