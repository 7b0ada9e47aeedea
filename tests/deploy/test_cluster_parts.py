"""What the tests on a cluster are made of, as far as it can be tested without one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from tests.deploy.load_pod import LoadPod, imports, manifests, shipped, troubles, unevenness
from tests.deploy.test_cluster import labels_for_prometheus, values
from tests.support import parts
from tests.support.cluster import (
    OWN,
    Cluster,
    Image,
    Images,
    helm,
    in_namespace,
    known,
    release_arguments,
    schedulable,
    selector_of,
    without_accounts,
)
from tests.support.commands import run

IMAGES = Images(
    Image.of("registry.example.com:5000/a/carillon-gateway:1.2"),
    Image.of("carillon-edge:dev"),
    Image.of("registry.example.com/valkey@sha256:" + "0" * 64),
)
QUIET: dict[str, Any] = {
    "flaws": {},
    "summary": "",
    "rooms_that_lost_their_history": 0,
    "refused": 0,
    "closes_without_a_frame": 0,
    "closes": {"3001": 250},
    "stopped": {},
    "moves_median": 1,
    "moves_most": 2,
}


class TestCommands:
    def test_give_what_was_printed(self) -> None:
        assert run([sys.executable, "-c", "print(input())"], stdin="hello") == "hello\n"

    def test_that_fail_show_all_of_it(self) -> None:
        program = "import sys; print('out'); sys.exit('err')"
        with pytest.raises(AssertionError, match=r"1 from: .*python.* -c '.*'\nout\nerr"):
            run([sys.executable, "-c", program])

    def test_that_take_too_long_show_what_there_is(self) -> None:
        program = "import time; print('out', flush=True); time.sleep(60)"
        with pytest.raises(AssertionError, match=r"not within 1 s: .*\nout"):
            run([sys.executable, "-c", program], timeout=1)


class TestImages:
    @pytest.mark.parametrize(
        ("reference", "repository", "tag", "digest"),
        [
            ("a:1", "a", "1", ""),
            ("registry:5000/a/b:1", "registry:5000/a/b", "1", ""),
            ("registry:5000/a/b@sha256:12", "registry:5000/a/b", "", "sha256:12"),
            ("a:1@sha256:12", "a", "1", "sha256:12"),
        ],
    )
    def test_are_taken_apart(self, reference: str, repository: str, tag: str, digest: str) -> None:
        image = Image.of(reference)
        assert (image.repository, image.tag, image.digest) == (repository, tag, digest)
        assert str(image) == reference

    @pytest.mark.parametrize("reference", ["a", "registry:5000/a"])
    def test_need_a_tag(self, reference: str) -> None:
        with pytest.raises(AssertionError, match="needs a tag"):
            Image.of(reference)


class TestManifests:
    DOCUMENTS: tuple[dict[str, Any], ...] = (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "there"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "there"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "b"},
            "subjects": [{"kind": "ServiceAccount", "name": "b", "namespace": "there"}],
        },
        {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "c"}},
    )

    def test_are_moved_into_the_namespace(self) -> None:
        service, binding, _ = in_namespace(self.DOCUMENTS, "here")
        assert service["metadata"]["namespace"] == "here"
        assert binding["subjects"][0]["namespace"] == "here"
        assert self.DOCUMENTS[1]["metadata"]["namespace"] == "there"

    @pytest.mark.parametrize(
        ("versions", "kinds"),
        [
            ({"v1", "rbac.authorization.k8s.io/v1"}, {"Service", "RoleBinding"}),
            ({"v1", "rbac.authorization.k8s.io/v1", "keda.sh/v1alpha1"}, {"Service", "RoleBinding", "ScaledJob"}),
            ({"v1", "rbac.authorization.k8s.io/v1", "keda.sh/v2"}, {"Service", "RoleBinding", "ScaledObject"}),
        ],
        ids=["no group", "no kind", "no version"],
    )
    def test_of_unknown_kinds_are_named(self, versions: set[str], kinds: set[str]) -> None:
        ours, unknown = known(in_namespace(self.DOCUMENTS, "here"), versions, kinds)
        assert [one["kind"] for one in ours] == ["Service", "RoleBinding"]
        assert unknown == ["ScaledObject (keda.sh/v1alpha1)"]

    def test_a_dry_run_names_no_account_that_only_it_has_made(self, rendered: list[dict[str, Any]]) -> None:
        """Deployments' pods are not made then; `helm test`'s is, and Kubernetes looks its account up."""
        assert [one["kind"] for one in rendered if "serviceAccountName" in one.get("spec", {})] == ["Pod"]
        changed = without_accounts(rendered)
        assert not any("serviceAccountName" in one.get("spec", {}) for one in changed)
        assert len(changed) == len(rendered)

    def test_nodes_that_take_no_pods_are_left_out(self) -> None:
        nodes: list[dict[str, Any]] = [
            {"metadata": {"name": "plain"}, "spec": {}},
            {"metadata": {"name": "cordoned"}, "spec": {"unschedulable": True}},
            {"metadata": {"name": "control"}, "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}},
            {"metadata": {"name": "unloved"}, "spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}},
        ]
        assert schedulable(nodes) == ["plain", "unloved"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The release that is installed, by the same arguments."""
    parts.require("helm")
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(yaml.safe_dump(values(IMAGES, replicas=3, settings={"rebalance_tolerance": 0.1})))
    _, *arguments = [one for one in release_arguments("install", file) if not one.startswith(("--wait", "--timeout"))]
    return [one for one in yaml.safe_load_all(run(helm("here", "template", *arguments))) if one]


class TestRelease:
    def test_has_the_given_images(self, rendered: list[dict[str, Any]]) -> None:
        found = {
            container["image"]
            for one in rendered
            if one["kind"] in ("Deployment", "StatefulSet")
            for container in one["spec"]["template"]["spec"]["containers"]
        }
        assert found == {str(IMAGES.gateway), str(IMAGES.edge), str(IMAGES.valkey)}

    def test_has_the_names_and_labels_that_the_tests_go_by(self, rendered: list[dict[str, Any]]) -> None:
        deployments = {one["metadata"]["name"]: one for one in rendered if one["kind"] == "Deployment"}
        assert {"carillon-gateway", "carillon-edge", "carillon-deletion-cost"} <= deployments.keys()
        for component in ("gateway", "edge"):
            labels = deployments[f"carillon-{component}"]["spec"]["template"]["metadata"]["labels"]
            assert set(selector_of(component).split(",")) <= {f"{key}={value}" for key, value in labels.items()}
        assert deployments["carillon-gateway"]["spec"]["replicas"] == 3

    def test_keeps_the_history_of_the_rooms_that_are_published_into(self, rendered: list[dict[str, Any]]) -> None:
        (file,) = (one for one in rendered if one["metadata"]["name"] == "carillon-gateway-file")
        assert "[namespaces.kept]" in file["data"]["carillon.toml"]
        assert "history_size = 10000" in file["data"]["carillon.toml"]

    def test_lets_the_load_in(self, rendered: list[dict[str, Any]]) -> None:
        (policy,) = (
            one for one in rendered if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "carillon-gateway"
        )
        assert {"podSelector": {"matchLabels": {"carillon-test": "load"}}} in [
            source for rule in policy["spec"]["ingress"] for source in rule.get("from", ())
        ]


class TestLoadPod:
    def test_is_what_kubernetes_takes(self) -> None:
        for document in manifests(IMAGES.gateway, edge="carillon-edge:80", api="carillon-gateway:9000"):
            validate(document, "1.37", strict=True)

    def test_brings_all_of_its_own_code_and_needs_only_what_is_in_the_image(self) -> None:
        code = shipped()
        assert "tests/chaos/checker.py" in code
        needed = {name.partition(".")[0] for text in code.values() for name in imports(text)}
        assert needed - sys.stdlib_module_names == {"app", "tests", "msgspec"}

    def test_mounts_every_file_where_python_finds_it(self) -> None:
        config, _, pod = manifests(IMAGES.gateway, edge="e:80", api="a:9000")
        volume = next(one for one in pod["spec"]["volumes"] if one["name"] == "code")
        assert {one["path"]: config["data"][one["key"]] for one in volume["configMap"]["items"]} == shipped()

    def test_runs_from_what_is_shipped_alone(self, tmp_path: Path) -> None:
        for path, text in shipped().items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        (tmp_path / "app").symlink_to(Path(__file__).parents[2] / "app")
        usage = run(
            [sys.executable, "-m", "tests.deploy.load_program", "--help"], environ={"PYTHONPATH": str(tmp_path)}
        )
        assert "{run,ask}" in usage


class TestVerdicts:
    def test_of_a_quiet_time(self) -> None:
        assert troubles(QUIET, moves=2) == []

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"flaws": {"lost": 1}, "summary": "client-1 in kept:1: lost 3"}, "client-1 in kept:1: lost 3"),
            ({"rooms_that_lost_their_history": 2}, "2 rooms lost their history"),
            ({"refused": 1}, "1 publications were refused"),
            ({"closes_without_a_frame": 1, "closes": {"1006": 1}}, "without a close frame: {'1006': 1}"),
            ({"stopped": {"3500": 1}}, "were told not to come back"),
            ({"moves_most": 3}, "3 at most"),
            ({"moves_median": 2}, "2 times (median)"),
        ],
    )
    def test_of_trouble(self, changed: dict[str, Any], said: str) -> None:
        (found,) = troubles(QUIET | changed, moves=2)
        assert said in found

    def test_moves_count_only_where_they_are_bounded(self) -> None:
        assert troubles(QUIET | {"moves_most": 9}) == []

    def test_unevenness_counts_pods_that_have_nobody(self) -> None:
        assert unevenness({"a": 100, "b": 100}, 2) == 1
        assert unevenness({"a": 100, "b": 100}, 4) == 2
        assert unevenness({}, 4) == 0


def test_a_release_is_told_from_others_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kubectl drain` looks at all namespaces, and would move somebody else's gateways."""
    for name in ("helm", "kubectl"):
        (tmp_path / name).write_text("#!/bin/sh\necho '{\"items\": []}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    Cluster("here", tmp_path).release("install", values(IMAGES))
    assert yaml.safe_load((tmp_path / "values.yaml").read_text())["commonLabels"] == {OWN: "here"}


def test_a_load_program_is_asked_by_exec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kubectl that says what it was asked."""
    fake = tmp_path / "kubectl"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps({{'argv': sys.argv[1:]}}))\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = LoadPod(Cluster("here", tmp_path)).ask("settle")
    assert asked["argv"] == [
        *("--namespace=here", "exec", "load", "--container=load", "--"),
        *("python", "-m", "tests.deploy.load_program", "ask", "settle"),
    ]


@pytest.mark.parametrize(
    ("types", "labels"),
    [
        ("", None),
        ("podmonitors prometheusrules", None),
        ("servicemonitors", {}),  # some take the operator's types over without its Prometheus
        ("prometheuses servicemonitors", {"release": "prometheus"}),
    ],
)
def test_monitors_get_the_labels_that_prometheus_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, types: str, labels: dict[str, str] | None
) -> None:
    """With a kubectl of a cluster that has these types."""
    found = {"items": [{"spec": {"serviceMonitorSelector": {"matchLabels": {"release": "prometheus"}}}}]}
    names = "\n".join(f"{one}.monitoring.coreos.com" for one in types.split())
    get = f"echo '{json.dumps(found)}'" if "prometheuses" in types else "exit 1"
    fake = tmp_path / "kubectl"
    fake.write_text(f"#!/bin/sh\ncase $2 in\napi-resources) echo '{names}' ;;\nget) {get} ;;\nesac\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert labels_for_prometheus(Cluster("here", tmp_path)) == labels
