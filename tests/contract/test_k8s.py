"""The manifests: every overlay renders, is valid for the Kubernetes that we name, and says what serving needs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.bundle.store import Bundle
from service.cli.commands.score import score
from service.settings import MIB, PREFIX, Settings
from service.telemetry.batch_metrics import BatchMetrics
from service.telemetry.metrics import Metrics
from service.transports.http import openapi
from service.transports.http.middleware import OPEN_PATHS

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
CRD_SCHEMAS = ROOT / "tests" / "data" / "crd_schemas"
ALL_OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
# KServe makes the Deployment of one itself, kind's has what a laptop has, and Ray's is a job.
OVERLAYS = [name for name in ALL_OVERLAYS if name not in ("kserve", "kind", "ray")]
# Ways in from outside, which need hosts and a certificate of the cluster's own, and ways to bundles of one's own.
WAYS_IN = {"ingress", "gateway"}
BUNDLES = {"bundle-volume", "bundle-image"}
COMPONENTS = sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))
# The oldest and the newest that the manifests are for: the preStop sleep needs 1.30.
VERSIONS = ["1.30", "1.37"]
# What others measure: Prometheus itself, and kube-state-metrics.
FOREIGN_METRICS = {"up", "kube_pod_container_status_restarts_total"}

Manifest = dict[str, Any]


def kubectl() -> str:
    """kubectl, from the PATH or where `make .venv/tools` puts it. Without it these tests fail: no skipping."""
    path = shutil.which("kubectl") or shutil.which("kubectl", path=ROOT / ".venv" / "bin")
    assert path, "these tests need kubectl: python tests/tools/kubectl.py .venv/bin/kubectl fetches it"
    return path


def render(directory: Path) -> list[Manifest]:
    command = [kubectl(), "kustomize", str(directory)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rendered.returncode == 0, rendered.stderr
    assert "deprecated" not in rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(K8S / "overlays" / request.param)


def one(manifests: list[Manifest], kind: str, name: str = "misfit") -> Manifest:
    """The manifest of that name; a generated ConfigMap's goes on with a hash."""
    pattern = re.compile(rf"{name}(-[a-z0-9]{{10}})?")
    (manifest,) = (each for each in manifests if each["kind"] == kind and pattern.fullmatch(each["metadata"]["name"]))
    return manifest


def pod_of(manifests: list[Manifest]) -> Manifest:
    pod: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return pod


def container_of(manifests: list[Manifest]) -> Manifest:
    (container,) = pod_of(manifests)["containers"]
    return dict(container)


def validate(manifest: Manifest) -> None:
    """Raises on an unknown field, a wrong type, or a kind that there is no schema for."""
    schema = CRD_SCHEMAS / f"{manifest['kind']}.json"
    if schema.exists():
        jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(manifest)
        for group in ray_groups(manifest) if manifest["kind"] == "RayJob" else ():
            validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]})
        return
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def ray_groups(job: Manifest) -> list[Manifest]:
    """The groups of pods of a RayJob: the head's, and the workers'."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_every_manifest_is_valid(overlay):
    assert {"Deployment", "Service", "NetworkPolicy", "PrometheusRule"} <= {each["kind"] for each in overlay}
    for manifest in overlay:
        validate(manifest)


@pytest.mark.parametrize(
    ("overlay_name", "kind"),
    [
        ("cpu", "Deployment"),
        ("cpu", "ServiceMonitor"),
        ("cpu", "PrometheusRule"),
        ("kserve", "ServingRuntime"),
        ("kserve", "InferenceService"),
        ("ray", "RayJob"),
    ],
)
def test_a_misspelt_field_is_not_valid(overlay_name, kind):
    manifest = one(render(K8S / "overlays" / overlay_name), kind)
    manifest["spec"]["replicsa"] = 2
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError), match="replicsa"):
        validate(manifest)


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name not in WAYS_IN | BUNDLES])
def test_every_component_is_in_an_overlay(component):
    used = (yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text()) for name in ALL_OVERLAYS)
    assert any(f"../../components/{component}" in overlay.get("components", ()) for overlay in used)


def render_with(directory: Path, components: list[str]) -> list[Manifest]:
    """The base with these components, by a kustomization in `directory`."""
    there = os.path.relpath(K8S, directory.resolve())
    content = {"resources": [f"{there}/base"], "components": [f"{there}/components/{name}" for name in components]}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return render(directory)


@pytest.mark.parametrize("component", [[name] for name in COMPONENTS if name != "gpu-mig"] + [["gpu", "gpu-mig"], []])
def test_any_component_may_be_left_out(component, tmp_path):
    """The base alone is whole, and so is every component on it."""
    manifests = render_with(tmp_path, component)
    for manifest in manifests:
        validate(manifest)
    assert one(manifests, "Deployment")["spec"]["selector"]


def test_pods_are_spread_and_leave_one_at_a_time(overlay):
    spread = {each["topologyKey"]: each for each in pod_of(overlay)["topologySpreadConstraints"]}
    assert set(spread) == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    labels = one(overlay, "Deployment")["spec"]["selector"]["matchLabels"]
    assert all(each["labelSelector"]["matchLabels"] == labels for each in spread.values())
    assert one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (scaler,) = (each["spec"] for each in overlay if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"))
    assert scaler.get("minReplicas", scaler.get("minReplicaCount")) >= 2


def test_only_gpu_pods_ask_for_a_gpu_and_they_refuse_to_do_without():
    for name, asked in {"cpu": [], "gpu": ["nvidia.com/gpu"], "gpu-mig": ["nvidia.com/mig-1g.10gb"]}.items():
        manifests = render(K8S / "overlays" / name)
        resources = container_of(manifests)["resources"]
        for kind in ("requests", "limits"):
            assert [each for each in resources[kind] if each.startswith("nvidia.com/")] == asked
            assert resources[kind].keys() >= {"cpu", "memory", "ephemeral-storage"}
        assert settings_of(manifests).get("MISFIT_REQUIRE_GPU", "false") == ("true" if asked else "false")


def test_nothing_is_left_outside_the_namespace_or_its_selector(overlay):
    labels = {"app.kubernetes.io/name": "misfit", "app.kubernetes.io/instance": "misfit"}
    for manifest in overlay:
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "misfit", manifest["kind"]
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for manifest in (each for each in overlay if each["kind"] == kind):
            selector = manifest["spec"]["selector"]
            assert selector == (labels if kind == "Service" else {"matchLabels": labels})


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    """Every MISFIT_ variable that the container is given."""
    container = container_of(manifests)
    generated = one(manifests, "ConfigMap", "misfit-settings")
    assert container["envFrom"] == [{"configMapRef": {"name": generated["metadata"]["name"]}}]
    own = {each["name"]: each["value"] for each in container["env"] if each["name"].startswith(PREFIX)}
    return generated["data"] | own


def test_every_setting_exists_and_is_valid(overlay, tmp_path, monkeypatch):
    settings = settings_of(overlay)
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(settings) <= known
    for name, value in settings.items():
        if value.startswith("/"):  # a file that only the pod has
            (tmp_path / Path(value).name).touch()
            value = str(tmp_path / Path(value).name)
        monkeypatch.setenv(name, value)
    Settings()


def test_no_service_link_can_pass_for_a_setting(overlay):
    """A Service misfit-grpc would set MISFIT_GRPC_PORT to an address."""
    assert pod_of(overlay)["enableServiceLinks"] is False


def test_the_longest_request_is_finished_before_the_pod_is_killed(overlay):
    longest = float(settings_of(overlay).get("MISFIT_TIMEOUT_SECONDS", Settings().timeout_seconds))
    pause = container_of(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod_of(overlay)["terminationGracePeriodSeconds"] > pause + longest
    ready = container_of(overlay)["readinessProbe"]
    assert pause >= ready["periodSeconds"]


def memory_in_runbook() -> dict[str, int]:
    """The rows of the runbook's table of memory, in MiB."""
    table = (K8S / "runbook.md").read_text().partition("| memory of a pod | MiB |")[2].partition("\n\n")[0]
    return {
        name.strip(): int(figure) for name, figure in re.findall(r"^\| ([^|]+) \| ([0-9]+) \|", table, re.MULTILINE)
    }


def test_a_pod_has_the_memory_that_the_runbook_adds_up_to(overlay):
    rows = memory_in_runbook()
    total = rows.pop("together")
    assert len(rows) >= 4
    assert total == sum(rows.values())
    for kind in ("requests", "limits"):
        memory = re.fullmatch(r"(\d+)Gi", container_of(overlay)["resources"][kind]["memory"])
        assert total <= int(memory[1]) * 1024
    (in_flight,) = (figure for name, figure in rows.items() if "MISFIT_MAX_BYTES_IN_FLIGHT" in name)
    max_bytes = settings_of(overlay).get("MISFIT_MAX_BYTES_IN_FLIGHT", Settings().max_bytes_in_flight)
    assert in_flight * 1024 * 1024 == int(max_bytes)


def test_the_probes_ask_what_they_mean(overlay):
    container = container_of(overlay)
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    asked = (ROOT / "service" / "inference" / "remote.py").read_text()
    seconds = int(re.search(r"PROBE_SECONDS = (\d+)", asked)[1])
    assert all(container[f"{probe}Probe"]["timeoutSeconds"] > seconds for probe in paths)


def test_the_pod_is_restricted(overlay):
    pod, container = pod_of(overlay), container_of(overlay)
    assert one(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["automountServiceAccountToken"] is False
    assert one(overlay, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert {variable["name"]: variable["value"] for variable in container["env"]}["BENTOML_HOME"].startswith("/tmp/")


def test_nothing_gets_out(overlay):
    policies = [each["spec"] for each in overlay if each["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    assert not any("egress" in policy for policy in policies)


def test_one_autoscaler_owns_the_number_of_pods(overlay):
    assert "replicas" not in one(overlay, "Deployment")["spec"]
    scalers = [each for each in overlay if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scalers) == 1
    assert "misfit_rows_in_flight" in json.dumps(scalers[0])


def test_the_networks_threads_follow_a_cpu_limit(overlay):
    assert "cpu" in container_of(overlay)["resources"]["limits"]


def expressions(manifests: list[Manifest]) -> dict[str, str]:
    """Every PromQL expression in the rules, the dashboard and the autoscaler, by where it is."""
    groups = one(manifests, "PrometheusRule")["spec"]["groups"]
    by_place = {rule.get("alert") or rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    dashboard = json.loads(one(manifests, "ConfigMap", "misfit-dashboard")["data"]["misfit.json"])
    for panel in dashboard["panels"]:
        by_place |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    for scaler in (each for each in manifests if each["kind"] == "ScaledObject"):
        (trigger,) = scaler["spec"]["triggers"]
        by_place["scaler"] = trigger["metadata"]["query"]
    return by_place


def metrics_in(node: Any) -> set[str]:
    """The metrics that a parsed PromQL expression selects."""
    if isinstance(node, promql_parser.VectorSelector):
        return {node.name}
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    return set().union(*(metrics_in(part) for part in [*parts, *getattr(node, "args", [])] if part is not None))


def test_every_expression_is_promql_and_names_only_metrics_that_there_are(overlay, known_metrics):
    for where, expression in expressions(overlay).items():
        named = metrics_in(promql_parser.parse(expression))
        assert named, where
        assert named <= known_metrics, where


@pytest.fixture(scope="module")
def known_metrics(served_bundle: Bundle) -> set[str]:
    """Ours, as the service registers them; BentoML's, as its source names them; and what the rules record."""
    registry = CollectorRegistry()
    metrics = Metrics(served_bundle, registry)
    metrics.count_grpc_call("Score", "OK", 0.1)
    metrics._contexts.labels("batch", "robust", "low")
    batches = BatchMetrics(registry)
    batches.report_bundle(served_bundle, "CPUExecutionProvider")
    batches.observe_wait("encode", 0.1)
    with batches.adaptive_batch("encode", 1, 32):
        pass
    ours = {sample.name for family in registry.collect() for sample in family.samples}
    seconds = "bentoml_service_request_duration_seconds"
    bentoml = {"bentoml_service_request_total", f"{seconds}_bucket"}
    return ours | bentoml | FOREIGN_METRICS | {"misfit:requests:rate5m"}


def test_every_alert_is_in_the_runbook_and_the_other_way_round(overlay):
    runbook = (K8S / "runbook.md").read_text()
    rules = [rule for group in one(overlay, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    alerts = [rule for rule in rules if "alert" in rule]
    assert set(re.findall(r"^### (Misfit\w+)$", runbook, re.MULTILINE)) == {alert["alert"] for alert in alerts}
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"].endswith(".")


def test_the_scrape_asks_a_port_that_there_is(overlay):
    (endpoint,) = one(overlay, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["path"] in openapi.document()["paths"]
    assert endpoint["port"] in [port["name"] for port in one(overlay, "Service")["spec"]["ports"]]


def test_kserve_runs_the_container_of_the_base():
    """The same limits, probes, pauses and rights, but for what KServe names itself."""
    manifests = render(K8S / "overlays" / "kserve")
    for manifest in manifests:
        validate(manifest)
        assert manifest["metadata"]["namespace"] == "misfit"
    runtime, base = one(manifests, "ServingRuntime")["spec"], container_of(render(K8S / "base"))
    (container,) = runtime["containers"]
    for field in ("resources", "lifecycle", "volumeMounts"):
        assert container[field] == base[field], field
    for probe, path in {"startup": "ready", "readiness": "ready", "liveness": "live"}.items():
        own = {"path": f"/v2/health/{path}", "port": 3000}
        assert container[f"{probe}Probe"] == {**base[f"{probe}Probe"], "httpGet": own}
    assert [each["containerPort"] for each in container["ports"]] == [3000, 3001]
    pod = pod_of(render(K8S / "base"))
    rights = {name: pod["securityContext"][name] for name in ("runAsNonRoot", "runAsUser", "runAsGroup")}
    rights["seccompProfile"] = pod["securityContext"]["seccompProfile"]
    assert container["securityContext"] == base["securityContext"] | rights
    assert runtime["volumes"] == pod["volumes"]
    settings = settings_of(render(K8S / "base"))
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert {name: value for name, value in variables.items() if name.startswith(PREFIX)} == settings
    predictor = one(manifests, "InferenceService")["spec"]["predictor"]
    assert predictor["model"]["runtime"] == one(manifests, "ServingRuntime")["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] in [each["name"] for each in runtime["supportedModelFormats"]]
    for field in ("terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"):
        assert predictor[field] == pod[field]
    assert {f"/v2/health/{path}" for path in ("live", "ready")} <= set(OPEN_PATHS)


def test_ray_runs_the_command_line_with_what_its_pods_have_and_the_rights_of_the_base():
    (job,) = render(K8S / "overlays" / "ray")
    validate(job)
    base = pod_of(render(K8S / "base"))
    head, workers = ray_groups(job)
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "registry.example.com/misfit-ray:0.1.0"
        assert container["securityContext"] == base["containers"][0]["securityContext"]
        assert pod["securityContext"] == base["securityContext"]
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    program, arguments = shlex.split(job["spec"]["entrypoint"])[:3], shlex.split(job["spec"]["entrypoint"])[4:]
    assert program == ["python", "-m", "service.cli"]
    values = score.make_context("score", arguments).params
    cpus = workers["replicas"] * int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert (values["engine"], values["actors"] * values["actor_cpus"]) == ("ray", cpus)
    assert head["rayStartParams"]["num-cpus"] == "0"
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]


@pytest.mark.parametrize("component", sorted(WAYS_IN))
def test_every_way_in_ends_at_a_port_of_the_service_has_tls_and_outlasts_a_request(component, tmp_path):
    manifests = render_with(tmp_path, [component])
    ports = one(manifests, "Service")["spec"]["ports"]
    longest = float(settings_of(manifests)["MISFIT_TIMEOUT_SECONDS"])
    if component == "ingress":
        entries = [each for each in manifests if each["kind"] == "Ingress"]
        for entry in entries:
            spec, annotations = entry["spec"], entry["metadata"]["annotations"]
            assert [host for tls in spec["tls"] for host in tls["hosts"]] == [rule["host"] for rule in spec["rules"]]
            assert float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest
            assert int(annotations["nginx.ingress.kubernetes.io/proxy-body-size"].removesuffix("m")) * MIB == (
                Settings().max_body_bytes
            )
        backends = [
            path["backend"]["service"] for each in entries for path in each["spec"]["rules"][0]["http"]["paths"]
        ]
        assert {(each["name"], each["port"]["name"]) for each in backends} == {
            ("misfit", port["name"]) for port in ports
        }
        return
    gateway = one(manifests, "Gateway")["spec"]
    hosts = {each["name"]: each["hostname"] for each in gateway["listeners"]}
    assert all(each["tls"]["mode"] == "Terminate" for each in gateway["listeners"])
    routes = [one(manifests, kind)["spec"] for kind in ("HTTPRoute", "GRPCRoute")]
    for route in routes:
        assert route["hostnames"] == [hosts[parent["sectionName"]] for parent in route["parentRefs"]]
    assert [route["rules"][0]["backendRefs"][0]["port"] for route in routes] == [port["port"] for port in ports]
    assert float(routes[0]["rules"][0]["timeouts"]["request"].removesuffix("s")) > longest


def test_the_first_hour_needs_nothing_but_the_image():
    """No registry, Secret, custom resource or adapter, and the rights of every other overlay."""
    manifests = render(K8S / "overlays" / "kind")
    for manifest in manifests:
        validate(manifest)
    assert {each["kind"] for each in manifests} == {
        "Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"
    }  # fmt: skip
    container, base = container_of(manifests), container_of(render(K8S / "base"))
    assert (container["image"], container["imagePullPolicy"]) == ("misfit:0.1.0", "IfNotPresent")
    assert container["securityContext"] == base["securityContext"]
    assert container["resources"]["limits"] == base["resources"]["limits"]
    service = one(manifests, "Service")["spec"]
    assert service["type"] == "NodePort"
    assert all(30000 <= port["nodePort"] <= 32767 for port in service["ports"])
    assert f"IMAGE ?= $(BENTO):{container['image'].partition(':')[2]}" in (ROOT / "Makefile").read_text()


def selects(manifest: Manifest) -> list[dict[str, str]]:
    """Every selector of labels in a manifest, but for those of namespaces."""
    found = []
    stack: list[Any] = [manifest]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            for name, child in node.items():
                if name in ("selector", "podSelector", "labelSelector") and child:
                    found.append(child.get("matchLabels", child))
                elif name != "namespaceSelector":
                    stack.append(child)
    return found


SECOND = """
nameSuffix: -second
labels:
  - pairs: {app.kubernetes.io/instance: second}
    includeSelectors: true
    fields:
      - {kind: ServiceMonitor, path: spec/selector/matchLabels}
# What no selector says, of KEDA's autoscaler: its Deployment, and in its query the namespace and the Service.
replacements:
  - source: {kind: Deployment, name: misfit, fieldPath: metadata.name}
    targets:
      - select: {kind: ScaledObject}
        fieldPaths: [spec.scaleTargetRef.name]
  - source: {kind: Service, name: misfit, fieldPath: metadata.name}
    targets:
      - select: {kind: ScaledObject}
        fieldPaths: [spec.triggers.0.metadata.query]
        options: {delimiter: '"', index: 3}
"""


@pytest.mark.parametrize("name", ["cpu", "gpu", "kind"])
def test_two_releases_in_one_namespace_do_not_mix(name, tmp_path):
    """The kustomization of the runbook makes a second release, whose selectors find only its own pods."""
    assert SECOND.strip() in (K8S / "runbook.md").read_text()
    there = os.path.relpath(K8S, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{there}/overlays/{name}]\n{SECOND}")
    first, second = render(K8S / "overlays" / name), render(tmp_path)
    for manifests, instance in ((first, "misfit"), (second, "second")):
        for manifest in manifests:
            for selector in selects(manifest):
                assert selector["app.kubernetes.io/instance"] == instance, manifest["kind"]
    names = [{(each["kind"], each["metadata"]["name"]) for each in each_release} for each_release in (first, second)]
    assert not {each for each in names[0] & names[1] if each[0] != "Namespace"}
    for manifest in second:
        validate(manifest)
        if (target := manifest.get("spec", {}).get("scaleTargetRef")) is not None:
            assert target["name"] == "misfit-second"
        for trigger in manifest.get("spec", {}).get("triggers", ()):
            assert 'namespace="misfit",job="misfit-second"' in trigger["metadata"]["query"]


def test_no_query_names_a_namespace(overlay):
    for where, expression in expressions(overlay).items():
        assert where == "scaler" or 'namespace="' not in expression, where
    for scaler in (each["spec"] for each in overlay if each["kind"] == "ScaledObject"):
        (trigger,) = scaler["triggers"]
        assert 'namespace="misfit",job="misfit"' in trigger["metadata"]["query"]


@pytest.mark.parametrize("component", sorted(BUNDLES))
def test_a_bundle_from_elsewhere_is_mounted_where_the_service_looks_for_it(component, tmp_path):
    manifests = render_with(tmp_path, [component])
    path = Path(settings_of(manifests)["MISFIT_BUNDLE"])
    (mount,) = (each for each in container_of(manifests)["volumeMounts"] if each["name"] == "bundles")
    assert path.is_relative_to(mount["mountPath"])
    assert mount["readOnly"] is True
    assert "bundles" in [volume["name"] for volume in pod_of(manifests)["volumes"]]
    for container in pod_of(manifests).get("initContainers", ()):
        assert container["securityContext"] == container_of(manifests)["securityContext"]
        assert container["command"][-1] == str(path)
    # A change of the bundle's name or image is a change of the pods, which roll one by one, none of them missing.
    assert one(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
