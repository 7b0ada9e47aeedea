"""The catalogue of faults, in the order of the long run."""

from tests.chaos import broker_faults as broker
from tests.chaos import pod_faults as pods
from tests.chaos.fault import Fault
from tests.chaos.site import Kind

FAULTS = [
    # While clients are spread over both pods, and one of them is the one behind the proxy.
    Fault("a pod's connection to Valkey cut", Kind.SINGLE, pods.cut_the_way),
    Fault("a pod's connection to Valkey delayed", Kind.SINGLE, pods.delay_the_way),
    Fault("a pod's connection to Valkey halved", Kind.SINGLE, pods.halve_the_way),
    Fault("CLIENT KILL TYPE pubsub", Kind.SINGLE, broker.kill_subscriptions),
    Fault("pub/sub output buffer limit", Kind.SINGLE, broker.overflow_a_buffer),
    Fault("SIGSTOP of Valkey for 10 s", Kind.SINGLE, broker.freeze_valkey),
    Fault("Valkey restart with AOF", Kind.SINGLE, broker.restart_with_aof),
    Fault("Valkey restart without persistence", Kind.SINGLE, broker.restart_empty, history_survives=False),
    Fault("Valkey restored from an older copy", Kind.SINGLE, broker.restore_a_copy, history_survives=False),
    Fault("SIGSTOP of a worker for 10 s", Kind.SINGLE, pods.freeze_a_worker),
    Fault("kill -9 of a worker", Kind.SINGLE, pods.kill_a_worker),
    Fault("Nginx reload", Kind.SINGLE, pods.reload_nginx),
    Fault("rolling restart", Kind.SINGLE, pods.roll_out, is_rollout=True),
    Fault("kill -9 of a pod", Kind.SINGLE, pods.kill_a_pod),
    Fault("kill -9 of a gunicorn master", Kind.SINGLE, pods.kill_a_master),
    # A promoted replica has another replication id, and that is all a script sees of it (P3): a new epoch either way.
    Fault(
        "Sentinel failover, replica in sync",
        Kind.SENTINEL,
        broker.fail_over_in_sync,
        history_survives=False,
        ends_its_site=True,
    ),
    Fault(
        "Sentinel failover, replica behind",
        Kind.SENTINEL,
        broker.fail_over_behind,
        history_survives=False,
        ends_its_site=True,
    ),
    Fault("Cluster slot moved", Kind.CLUSTER, broker.move_a_slot, history_survives=False),
    Fault("Cluster master failed over", Kind.CLUSTER, broker.fail_over_a_shard, history_survives=False),
]

#: What `make test` does, on one site.
SHORT = [
    "CLIENT KILL TYPE pubsub",
    "Valkey restart with AOF",
    "Valkey restart without persistence",
    "kill -9 of a worker",
    "rolling restart",
]


def named(part: str) -> list[Fault]:
    """Those whose name contains this, in any case."""
    return [fault for fault in FAULTS if part.lower() in fault.name.lower()]
