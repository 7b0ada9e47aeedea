"""Raises the soft limit of open files to the hard one: containers start with 1024, one descriptor per client."""

import contextlib
import resource

DARWIN_MOST = 10_240  # macOS says "unlimited" and then takes no more than OPEN_MAX

OWN = 256  # descriptors of a worker that are no clients: Redis, listeners, logs, processes of offload(), and spare
FEW = 10_000  # below so many a worker without `max_connections` may run out of them before it runs out of memory


def raise_nofile() -> int:
    """Returns the limit that now holds. Workers inherit it from the master."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, min(hard, DARWIN_MOST) if hard != resource.RLIM_INFINITY else DARWIN_MOST):
        if wanted == resource.RLIM_INFINITY or wanted > soft:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def too_few(limit: int, max_connections: int) -> str | None:
    """Why so many open files are too few for a worker's clients, in one line; None where they are not."""
    if limit >= (max_connections + OWN if max_connections else FEW):
        return None
    wanted = f"not CARILLON_MAX_CONNECTIONS={max_connections}" if max_connections else "and then no more"
    return (
        f"{limit} open files: a worker can hold {max(limit - OWN, 0)} clients, {wanted}; raise the hard limit "
        "(docker: --ulimit nofile=, systemd: LimitNOFILE=, Kubernetes: the node's container runtime)"
    )
