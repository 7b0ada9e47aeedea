"""Raises the soft limit of open files to the hard one: containers start with 1024, one descriptor per client."""

import contextlib
import resource

DARWIN_MOST = 10_240  # macOS says "unlimited" and then takes no more than OPEN_MAX


def raise_nofile() -> int:
    """Returns the limit that now holds. Workers inherit it from the master."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, min(hard, DARWIN_MOST) if hard != resource.RLIM_INFINITY else DARWIN_MOST):
        if wanted == resource.RLIM_INFINITY or wanted > soft:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
