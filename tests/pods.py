"""Runs the containers of Kubernetes manifests as processes: each pod a host of its own with its own address, and a root
that holds what its image holds, its volumes and nothing else, read-only where the manifest says so."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hosts import Hosts
from processes import BIN, PATIENCE_SECONDS, REPO, wait_for_text

KUBELET = "kubelet"  # the host that probes
SYSTEM = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "proc", "dev"]  # the image's Debian, and the kernel's
PLACE = "/opt/polystill"
Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in kinds}


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    return of_kind(manifests, "StatefulSet", "Deployment", "Job")


def entrypoint(image: str) -> list[str]:
    """Of the image's Dockerfile: polystill-ROLE is made by ROLE.Dockerfile."""
    dockerfile = REPO / "deploy" / "docker" / f"{image.removeprefix('polystill-')}.Dockerfile"
    (line,) = re.findall(r"^ENTRYPOINT (.*)$", dockerfile.read_text(), re.MULTILINE)
    return list(json.loads(line))


@dataclass
class Pod:
    name: str
    workload: str
    template: Manifest
    namespace: str

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.template["spec"]
        return spec

    @property
    def container(self) -> Manifest:
        (container,) = self.spec["containers"]
        return dict(container)

    def command(self, address: str) -> list[str]:
        """The process's words, with each $(NAME) of the environment filled in as the kubelet does."""
        fields = {"status.podIP": address, "metadata.name": self.name, "metadata.namespace": self.namespace}
        environment = {
            entry["name"]: entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in self.container.get("env", [])
        }
        words = [*self.container.get("command", entrypoint(self.container["image"])), *self.container.get("args", [])]
        return [re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: environment[match[1]], word) for word in words]

    def probe(self, kind: str, address: str) -> dict[str, Any] | None:
        """{protocol, address, port, service}, or None when the container has no such probe."""
        probe = self.container.get(f"{kind}Probe")
        if probe is None:
            return None
        (protocol,) = probe.keys() & {"grpc", "tcpSocket", "httpGet", "exec"}
        named = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        port = probe[protocol]["port"]
        service = probe[protocol].get("service", "")
        return {"protocol": protocol, "address": address, "port": named.get(port, port), "service": service}


def pods_of(manifests: list[Manifest]) -> list[Pod]:
    return [
        Pod(f"{name}-{index}", name, workload["spec"]["template"], workload["metadata"]["namespace"])
        for name, workload in workloads(manifests).items()
        for index in range(workload["spec"].get("completions", workload["spec"].get("replicas", 1)))
    ]


@dataclass
class Cluster:
    """`folder` holds the claims, the config maps and the logs. Ends every process with the block."""

    folder: Path
    manifests: list[Manifest]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pods = pods_of(self.manifests)
        self.hosts = Hosts(KUBELET, *(pod.name for pod in self.pods))

    def __enter__(self) -> Cluster:
        self.hosts.__enter__()
        (self.folder / "hosts").write_text("".join(self._names()))
        return self

    def __exit__(self, *error: Any) -> None:
        for name, process in self.processes.items():
            self.signal(name, signal.SIGKILL)
            process.kill()  # and so, by --kill-child, what has not become the container yet
            process.wait()
        self.hosts.__exit__(None, None, None)

    def of(self, workload: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.workload == workload]

    def start(self, pod: Pod) -> None:
        words = pod.command(self.hosts.address(pod.name))
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command = [*self.hosts.on(pod.name), *alone, "sh", "-c", "\n".join(self._root(pod)), "sh", *words]
        with self._log(pod).open("ab") as log:
            self.processes[pod.name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_again_until_complete(self) -> dict[str, list[int]]:
        """As the kubelet: starts each container that has ended again, where its pod's restartPolicy says so, until all
        Jobs are complete; but at once. Returns with which codes they ended, by pod."""
        ended: dict[str, list[int]] = {pod.name: [] for pod in self.pods}
        deadline = time.monotonic() + 2 * PATIENCE_SECONDS
        jobs = of_kind(self.manifests, "Job")
        while any(self.processes[pod.name].poll() != 0 for pod in self.pods if pod.workload in jobs):
            assert time.monotonic() < deadline, self.logs()
            for pod in self.pods:
                code = self.processes[pod.name].poll()
                if code is None or (code == 0 and pod.spec.get("restartPolicy") == "OnFailure"):
                    continue
                ended[pod.name].append(code)
                assert pod.workload not in jobs or len(ended[pod.name]) < jobs[pod.workload]["spec"]["backoffLimit"]
                self.start(pod)
            time.sleep(0.1)
        return ended

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the first process of a pod, as the kubelet does; to nobody when it has ended."""
        unshare = self.processes[name]
        if unshare.poll() is None:
            for child in Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split():
                os.kill(int(child), number)

    def wait(self, pod: Pod) -> int:
        try:
            return self.processes[pod.name].wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{pod.name} still runs:\n{self.log(pod)}") from error

    def wait_for_log(self, pod: Pod, text: str) -> None:
        wait_for_text(self._log(pod), text, self.processes[pod.name])

    def log(self, pod: Pod) -> str:
        return self._log(pod).read_text(errors="replace")

    def _log(self, pod: Pod) -> Path:
        return self.folder / f"{pod.name}.log"

    def logs(self) -> str:
        return "\n".join(f"--- {pod.name}\n{self.log(pod)}" for pod in self.pods if pod.name in self.processes)

    def answers(self, kind: str, pods: list[Pod], wait_seconds: float = 0) -> dict[str, bool]:
        """Whether the probes of one kind (startup, readiness, liveness) succeed, by pod: at once, or within a time."""
        probes = {pod.name: pod.probe(kind, self.hosts.address(pod.name)) for pod in pods}
        command = [sys.executable, str(REPO / "tests" / "probe.py"), str(wait_seconds), json.dumps(probes)]
        done = subprocess.run([*self.hosts.on(KUBELET), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def scraped(self, pod: Pod) -> str:
        """What Prometheus reads, by the pod's annotations."""
        told = pod.template["metadata"]["annotations"]
        assert told["prometheus.io/scrape"] == "true"
        assert int(told["prometheus.io/port"]) in [port["containerPort"] for port in pod.container["ports"]]
        url = f"http://{self.hosts.address(pod.name)}:{told['prometheus.io/port']}{told['prometheus.io/path']}"
        read = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1]).read().decode())"
        command = [*self.hosts.on(KUBELET), "env", "no_proxy=*", sys.executable, "-c", read, url]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def claim(self, name: str) -> Path:
        """The folder of a claim that a StatefulSet of the manifests makes."""
        made = {
            f"{template['metadata']['name']}-{pod.name}"
            for name, stateful in of_kind(self.manifests, "StatefulSet").items()
            for template in stateful["spec"]["volumeClaimTemplates"]
            for pod in self.of(name)
        }
        assert name in made, f"no StatefulSet makes a claim {name}: {made}"
        return self.folder / name

    def _names(self) -> Iterator[str]:
        """Lines for /etc/hosts: a headless Service has the addresses of the pods that it selects."""
        for name, service in of_kind(self.manifests, "Service").items():
            assert service["spec"]["clusterIP"] == "None"
            selected = [
                pod
                for pod in self.pods
                if service["spec"]["selector"].items() <= pod.template["metadata"]["labels"].items()
            ]
            assert selected, f"Service {name} selects no pod"
            for pod in selected:
                yield f"{self.hosts.address(pod.name)} {name} {name}.{pod.namespace}.svc.cluster.local\n"

    def _volumes(self, pod: Pod) -> Mapping[str, Path]:
        claims = workloads(self.manifests)[pod.workload]["spec"].get("volumeClaimTemplates", [])
        found = {claim["metadata"]["name"]: self.claim(f"{claim['metadata']['name']}-{pod.name}") for claim in claims}
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume:
                config = of_kind(self.manifests, "ConfigMap")[volume["configMap"]["name"]]
                folder = self.folder / config["metadata"]["name"]
                folder.mkdir(exist_ok=True)
                for name, text in config["data"].items():
                    (folder / name).write_text(text)
            elif "persistentVolumeClaim" in volume:
                folder = self.claim(volume["persistentVolumeClaim"]["claimName"])
            else:
                assert "emptyDir" in volume, volume
                folder = self.folder / f"{pod.name}-{volume['name']}"
            found[volume["name"]] = folder
        for folder in found.values():
            folder.mkdir(exist_ok=True)
            if os.geteuid() == 0:  # what the kubelet does with fsGroup
                os.chown(folder, -1, pod.spec["securityContext"]["fsGroup"])
                folder.chmod(0o2775)
        return found

    def _root(self, pod: Pod) -> Iterator[str]:
        """A script that makes the container's root, in a mount namespace of its own, and becomes its process."""
        root = self.folder / f"{pod.name}-root"
        root.mkdir(exist_ok=True)

        def bind(source: Path, target: str, *options: str) -> Iterator[str]:
            place = shlex.quote(f"{root}{target}")
            yield f"mkdir -p {place} && mount --rbind {shlex.quote(str(source))} {place}"
            if options:
                yield f"mount -o remount,bind,{','.join(options)} {place}"

        yield f'set -e; umask 022; cd {shlex.quote(str(root))}; mount -t tmpfs -o mode=755 root .; cd "$PWD"'
        yield f"for at in {' '.join(SYSTEM)}; do"
        yield "if [ -L /$at ]; then cp -P /$at $at; elif [ -d /$at ]; then mkdir $at; mount --rbind /$at $at; fi; done"
        yield "mkdir etc; for at in passwd group nsswitch.conf ld.so.cache; do cp /etc/$at etc; done"
        yield f"cp {shlex.quote(str(self.folder / 'hosts'))} etc"
        yield from bind((REPO / ".venv").resolve(), str(REPO / ".venv"))  # where the programs look
        for folder in ("bin", "lib"):  # as `cmake --install` puts them
            yield from bind(BIN.parent / folder, f"{PLACE}/{folder}")
        yield from bind(REPO / "recipes/package_topics/sample", f"{PLACE}/recipes/package_topics/sample")
        volumes = self._volumes(pod)
        for mount in pod.container["volumeMounts"]:
            yield from bind(volumes[mount["name"]], mount["mountPath"], *(["ro"] if mount.get("readOnly") else []))
        if pod.container["securityContext"].get("readOnlyRootFilesystem"):
            yield "mount -o remount,bind,ro ."
        yield f'exec chroot . {shlex.join(self._user(pod))} "$@"'

    def _user(self, pod: Pod) -> list[str]:
        if os.geteuid() != 0:
            return []  # whose namespace knows one user only; no root either
        security = pod.spec["securityContext"]
        user, group, fs_group = security["runAsUser"], security["runAsGroup"], security["fsGroup"]
        ids = ["--reuid", str(user), "--regid", str(group), "--groups", str(fs_group)]
        return ["setpriv", *ids, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
