"""Namespaces of a test's own: they need root, or user namespaces, which some machines forbid (parts: `unshare`)."""

import os


def in_own(*command: str) -> list[str]:
    """`unshare` with these options, and the command that follows them."""
    return ["unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), *command]


def in_those_of(pid: str, *command: str) -> list[str]:
    """`nsenter` likewise: into namespaces that `in_own` has made."""
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    return ["nsenter", "--target", pid, *user, *command]
