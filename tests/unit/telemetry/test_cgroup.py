"""The memory of a container (cgroup v2)."""

from pathlib import Path

from app.telemetry.cgroup import Memory, memory

STAT = "anon 700\nfile 300\nsock 50\ninactive_file 120\nactive_file 30\n"


def machine(root: Path, membership: str, group: str, **files: str) -> Path:
    """A folder that looks like / to a process in this group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)
    return root


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", "", current="1000\n", max="4000\n", stat=STAT)
    assert memory(root) == Memory(used=880, limit=4000)


def test_a_service_of_systemd_has_a_group_further_down(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/system.slice/a.service\n", "system.slice/a.service", current="1", max="2", stat=STAT)
    assert memory(root).limit == 2


def test_without_a_limit_it_is_zero(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", "", current="1000\n", max="max\n", stat=STAT)
    assert memory(root) == Memory(used=880, limit=0)


def test_where_nothing_can_be_known_nothing_is_said(tmp_path: Path) -> None:
    assert memory(tmp_path) == Memory()
    assert memory(machine(tmp_path / "root", "0::/\n", "")) == Memory()
    assert memory(machine(tmp_path / "old", "4:memory:/x\n", "x", current="1", max="2", stat=STAT)) == Memory()
