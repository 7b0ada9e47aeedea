"""The Lua scripts, called by their content's hash (P6): versions that share a server never replace each other's."""

from hashlib import sha1
from importlib.resources import files


class Script:
    """One script: its source for EVAL, and its hash for EVALSHA."""

    __slots__ = ("sha", "source")

    def __init__(self, *names: str) -> None:
        folder = files("app.broker") / "lua"
        # With this line a server without memory, disk or replicas refuses the whole script before its first step
        # (Redis 7, "script flags"); without it, a first DEL would let all later writes through.
        parts = ("#!lua", *((folder / f"{name}.lua").read_text("utf-8") for name in names))
        self.source = "\n".join(parts).encode()
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest().encode()


PUBLISH = Script("epoch", "publish")
READ = Script("epoch", "read")
ADMIT = Script("admit")
ATTEND = Script("attendance", "attend")
PRESENT = Script("attendance", "present")
REVOKE = Script("revoke")

SOURCES = {script.sha: script.source for script in (PUBLISH, READ, ADMIT, ATTEND, PRESENT, REVOKE)}
