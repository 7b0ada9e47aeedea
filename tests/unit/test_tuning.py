"""tuning/ sets what this kernel knows, says why, and says truly what a pod cannot set."""

import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from helm.generate import SAFE_SYSCTLS
from local.stack import ROOT
from tests.support import parts
from tests.support.namespaces import in_own
from tuning import catalogue

SYS = Path("/proc/sys")
TUNING = ROOT / "tuning"
FILES = catalogue.files()
ALL = [pytest.param(name, setting, id=f"{name}:{setting.name}") for name in FILES for setting in FILES[name]]
#: What a kernel may lack, and why.
NOT_EVERYWHERE = {
    "net.ipv4.tcp_migrate_req": "since Linux 5.14",
    "net.netfilter.nf_conntrack_max": "only with the module nf_conntrack",
    "net.netfilter.nf_conntrack_buckets": "only with the module nf_conntrack",
}
#: The machines that the files are for: all that they set has to fit into so much memory.
MEMORY = {"61-carillon-100k.conf": 16 << 30, "62-carillon-1m.conf": 64 << 30}

linux = pytest.mark.skipif(not SYS.exists(), reason="these are settings of Linux")


def path_of(name: str) -> Path:
    return SYS / name.replace(".", "/")


def numbers(value: str) -> list[int]:
    return [int(word) for word in value.split()]


@linux
@pytest.mark.parametrize(("_file", "setting"), ALL)
def test_the_kernel_knows_it_and_has_as_many_numbers(_file: str, setting: catalogue.Setting) -> None:
    path = path_of(setting.name)
    if not path.exists():
        assert setting.name in NOT_EVERYWHERE
        return
    assert len(numbers(path.read_text())) == len(numbers(setting.value))


@linux
@pytest.mark.parametrize("name", FILES)
def test_sysctl_reads_the_file(name: str) -> None:
    ran = subprocess.run(
        ["sysctl", "--dry-run", "--ignore", "--load", catalogue.FOLDER / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = [f"{each.name} = {each.value}" for each in FILES[name] if path_of(each.name).exists()]
    assert ran.stdout.splitlines() == shown


@pytest.mark.parametrize("line", ["net.ipv4.x 1", "net.ipv4.x = many", "net.ipv4.tcp_mem=1"])
def test_a_line_that_is_no_setting_is_seen(line: str, tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text(f"# Why: a\n# Without: b\n# Check: c\n# In a pod: d\n{line}\n", "utf-8")
    with pytest.raises(catalogue.NotSaid, match="is no setting"):
        catalogue.settings(file)


def test_a_line_without_its_reasons_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text("# Why: a\n# Without: b\n# Check: c\nnet.ipv4.x = 1\n", "utf-8")
    with pytest.raises(catalogue.NotSaid, match=r"net\.ipv4\.x does not say"):
        catalogue.settings(file)


def test_the_larger_profile_stands_alone_and_takes_nothing_back() -> None:
    small, large = FILES["61-carillon-100k.conf"], {each.name: each.value for each in FILES["62-carillon-1m.conf"]}
    for setting in small:
        assert numbers(large[setting.name]) >= numbers(setting.value)


@pytest.mark.parametrize(("name", "memory"), MEMORY.items())
def test_tcp_leaves_memory_for_the_rest(name: str, memory: int) -> None:
    tcp_mem = next(numbers(each.value) for each in FILES[name] if each.name == "net.ipv4.tcp_mem")
    assert tcp_mem == sorted(tcp_mem)
    assert tcp_mem[-1] * 4096 <= memory * 2 // 5


@pytest.mark.parametrize(("_file", "setting"), ALL)
def test_safe_is_what_kubernetes_calls_safe(_file: str, setting: catalogue.Setting) -> None:
    assert setting.words["In a pod"].startswith("safe") == (setting.name in SAFE_SYSCTLS)


@linux
def test_what_a_pod_cannot_set_is_not_there_in_its_network_namespace() -> None:
    parts.require("unshare")
    writable = subprocess.run(
        in_own("--net", "sh", "-c", _SHOW_WRITABLE, "sh")
        + [str(path_of(name)) for name in _names() if name.startswith("net.")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for _, setting in (param.values for param in ALL):
        if setting.name.startswith("net.") and path_of(setting.name).exists():
            impossible = setting.words["In a pod"].startswith("impossible")
            assert (str(path_of(setting.name)) in writable) != impossible, setting.name


#: By the mode, as root may write whatever the mode is until the kernel says no.
_SHOW_WRITABLE = 'for path; do case $(stat -c %A "$path" 2>/dev/null) in -?w*) echo "$path" ;; esac; done'


def _names() -> list[str]:
    return sorted({each.name for settings in FILES.values() for each in settings})


def test_the_edges_manifests_have_the_same_range_of_ports() -> None:
    wanted = next(each.value for each in FILES["60-carillon.conf"] if each.name == "net.ipv4.ip_local_port_range")
    low = numbers(wanted)[0]
    for manifest in ("k8s/base/edge.yaml", "helm/carillon/values.yaml"):
        text = (ROOT / manifest).read_text("utf-8")
        assert re.findall(r'ip_local_port_range\n\s+value: "?([\d ]+)', text) == [wanted], manifest
        assert all(int(port) < low for port in re.findall(r"(?:containerPort|[pP]ort): (\d+)", text)), manifest


def test_limits_are_those_of_the_units() -> None:
    limits = (TUNING / "limits.d" / "carillon.conf").read_text("utf-8")
    asked = {line.split()[-1] for line in limits.splitlines() if line and not line.startswith("#")}
    units = [*(TUNING / "systemd").glob("*.conf"), *(ROOT / "systemd").glob("*.service")]
    found = {
        limit for unit in units for limit in re.findall(r"^LimitNOFILE=(.+)$", unit.read_text("utf-8"), re.MULTILINE)
    }
    assert asked == found == {"524288"}


# -- the DaemonSet


@pytest.fixture(scope="module")
def objects() -> list[dict[str, object]]:
    kubectl = parts.require("kubectl")
    ran = subprocess.run([kubectl, "kustomize", TUNING], capture_output=True, text=True, check=True)
    return [each for each in yaml.safe_load_all(ran.stdout) if each]


def one(objects: list[dict[str, object]], kind: str) -> dict:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def test_nodes_get_exactly_what_the_files_say(objects: list[dict[str, object]]) -> None:
    data, daemon = one(objects, "ConfigMap")["data"], one(objects, "DaemonSet")["spec"]["template"]["spec"]
    assert data["profile.conf"] == (catalogue.FOLDER / "61-carillon-100k.conf").read_text("utf-8")
    assert data["node-tuning.sh"] == (TUNING / "node-tuning.sh").read_text("utf-8")
    assert daemon["volumes"][0]["configMap"]["name"] == one(objects, "ConfigMap")["metadata"]["name"]
    mounted = daemon["containers"][0]["volumeMounts"][0]["mountPath"]
    assert daemon["containers"][0]["command"] == ["sh", f"{mounted}/node-tuning.sh", f"{mounted}/profile.conf"]


def test_it_is_alone_in_its_namespace_and_only_on_nodes_that_ask_for_it(objects: list[dict[str, object]]) -> None:
    for each in objects:
        kubernetes_validate.validate(each, "1.37", strict=True)
    namespace = one(objects, "Namespace")["metadata"]
    assert {each["metadata"].get("namespace") for each in objects} == {None, namespace["name"]}
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    pod = one(objects, "DaemonSet")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"carillon/node-tuning": "true"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostNetwork"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["privileged"] is True
    assert ":" in container["image"]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A folder in the place of /proc/sys, as a kernel without nf_conntrack has it."""
    for setting in FILES["61-carillon-100k.conf"]:
        if "netfilter" not in setting.name:
            path = tmp_path / "sys" / setting.name.replace(".", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("1\t2\t3\n")
    return tmp_path / "sys"


def tune(kernel: Path, file: Path) -> list[str]:
    env = os.environ | {"ONCE": "1", "PROC_SYS": str(kernel)}
    script = ["sh", TUNING / "node-tuning.sh", file]
    return subprocess.run(script, env=env, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()


def test_the_script_writes_once_and_says_what_is_not_there(kernel: Path) -> None:
    file = catalogue.FOLDER / "61-carillon-100k.conf"
    absent = f"{kernel}/net/netfilter/nf_conntrack_max is not there: left out"
    first = tune(kernel, file)
    assert f"{kernel}/net/ipv4/tcp_mem: 1 2 3 -> 786432 1048576 1572864" in first
    assert absent in first
    for setting in FILES[file.name]:
        if "netfilter" not in setting.name:
            assert (kernel / setting.name.replace(".", "/")).read_text().strip() == setting.value
    assert tune(kernel, file) == [absent]


def test_what_the_kernel_refuses_does_not_keep_the_rest_from_being_written(kernel: Path) -> None:
    """A node of kind is a container: it may not change the size of the machine's connection table."""
    refused, *rest = FILES["61-carillon-100k.conf"]
    path = kernel / refused.name.replace(".", "/")
    path.unlink()
    path.mkdir()  # nothing can be written there, not even by root
    said = tune(kernel, catalogue.FOLDER / "61-carillon-100k.conf")
    assert said[0] == f"{path}:  stays, the kernel refuses {refused.value}: left out"
    written = [setting for setting in rest if "netfilter" not in setting.name]
    for setting in written:
        assert (kernel / setting.name.replace(".", "/")).read_text().strip() == setting.value
    assert written
