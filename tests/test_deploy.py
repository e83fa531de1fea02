"""deploy/: its manifests run a distillation to its end, and its images hold what the manifests start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from pods import Cluster, Manifest, entrypoint, of_kind, pods_of, render, workloads
from processes import BIN, PATIENCE_SECONDS, REPO

DEPLOY = REPO / "deploy"
COORDINATOR, TEACHER, STUDENT = "polystill-coordinator", "polystill-teacher-english", "polystill-student"


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return render(DEPLOY / "base")


def test_the_base_distils_the_sample(tmp_path: Path) -> None:
    with Cluster(tmp_path, render(DEPLOY / "base")) as cluster:
        coordinator, teachers, students = (cluster.of(name) for name in (COORDINATOR, TEACHER, STUDENT))
        for pod in [*teachers, *coordinator]:
            cluster.start(pod)
        # Without students nobody trains the teacher: it must count as alive, and not as ready.
        for kind in ("startup", "liveness"):
            alive = cluster.answers(kind, [*coordinator, *teachers], PATIENCE_SECONDS)
            assert all(alive.values()), (kind, alive, cluster.logs())
        assert all(cluster.answers("readiness", coordinator).values())
        assert not any(cluster.answers("readiness", teachers).values())
        for pod in students:
            cluster.start(pod)
        for pod in students:
            cluster.wait_for_log(pod, "metrics at ")
        for pods, family in (
            (coordinator, "run_state"),
            (teachers, "teacher_queue_records"),
            (students, "student_data_wait_seconds_total"),
        ):
            for pod in pods:
                assert f"# TYPE polystill_{family} " in cluster.scraped(pod)
        ready = cluster.answers("readiness", cluster.pods, PATIENCE_SECONDS)
        assert all(ready.values()), (ready, cluster.logs())
        assert {pod.name: cluster.wait(pod) for pod in cluster.pods} == {pod.name: 0 for pod in cluster.pods}
        report = json.loads((cluster.claim("shared-polystill-coordinator-0") / "runs/sample/report.json").read_text())
    assert report["labels"]["count"] == 96 * 20
    assert report["student"]["workers"] == len(students) == 2
    assert report["mean"]["distilled"]["accuracy"] > report["mean"]["no_teacher"]["accuracy"]
    assert len(teachers) == 2


# Who gets a signal, and with what exit codes containers end then, before Kubernetes starts them again: a run that is
# ordered to stop ends everybody, one that loses somebody goes on. (Of a container that is killed, `unshare` says 1.)
@pytest.mark.parametrize(
    ("workload", "number", "ends"),
    [
        (COORDINATOR, signal.SIGKILL, {COORDINATOR: {1}, STUDENT: set()}),
        (COORDINATOR, signal.SIGTERM, {COORDINATOR: {130}, STUDENT: {75}}),
        (STUDENT, signal.SIGTERM, {COORDINATOR: set(), STUDENT: {128 + signal.SIGTERM}}),
    ],
)
def test_a_run_goes_on_when_a_container_ends(
    tmp_path: Path, workload: str, number: signal.Signals, ends: dict[str, set[int]]
) -> None:
    with Cluster(tmp_path, render(DEPLOY / "base")) as cluster:
        for pod in cluster.pods:
            cluster.start(pod)
        for student in cluster.of(STUDENT):
            cluster.wait_for_log(student, "teacher:english: generation 1")
        cluster.signal(cluster.of(workload)[0].name, number)
        codes = cluster.start_again_until_complete()
        report = json.loads((cluster.claim("shared-polystill-coordinator-0") / "runs/sample/report.json").read_text())
    for name, expected in ends.items():
        assert {codes[pod.name][0] for pod in cluster.of(name) if codes[pod.name]} == expected, codes
    assert all(code != 0 for pod in cluster.of(STUDENT) for code in codes[pod.name]), codes
    assert report["labels"]["count"] == 96 * 20
    assert ("term 2" in cluster.log(cluster.of(COORDINATOR)[0])) == bool(ends[COORDINATOR])


def run_file(manifests: list[Manifest]) -> Manifest:
    (config,) = of_kind(manifests, "ConfigMap").values()
    return dict(yaml.safe_load(config["data"]["run.yaml"]))


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_the_run_file_and_the_pods_agree(manifests: list[Manifest]) -> None:
    run = run_file(manifests)
    student = workloads(manifests)[STUDENT]["spec"]
    assert run["student"]["workers"] == student["completions"] == student["parallelism"]
    served = {
        after(workload["spec"]["template"]["spec"]["containers"][0]["args"], "--teacher"): workload["spec"]["replicas"]
        for workload in of_kind(manifests, "Deployment").values()
    }
    assert served == {teacher["name"]: teacher["replicas"] for teacher in run["teachers"]}


def test_the_pods_are_restricted(manifests: list[Manifest]) -> None:
    for pod in pods_of(manifests):
        assert pod.spec["automountServiceAccountToken"] is False
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod.container["resources"].keys() == {"requests", "limits"}
        assert pod.template["metadata"]["labels"].keys() >= {
            f"app.kubernetes.io/{label}" for label in ("name", "part-of", "component")
        }


def test_teachers_have_time_to_drain(manifests: list[Manifest]) -> None:
    (teacher, *_) = [pod for pod in pods_of(manifests) if pod.workload == TEACHER]
    drain = int(after(teacher.container["args"], "--drain-ms"))
    assert drain < 1000 * teacher.spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("workload", [STUDENT, TEACHER])
def test_the_gpu_patch_gives_each_pod_one(manifests: list[Manifest], workload: str) -> None:
    given = workloads(manifests)[workload]
    patch = json.dumps(yaml.safe_load((DEPLOY / "patches" / "gpu.yaml").read_text()))
    command = ["kubectl", "patch", "--local", "--filename", "-", "--type", "json", "--patch", patch, "--output", "json"]
    done = subprocess.run(command, input=yaml.safe_dump(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = (of["spec"]["template"]["spec"]["containers"][0] for of in (given, json.loads(done.stdout)))
    before["resources"]["limits"]["nvidia.com/gpu"] = 1
    before["args"] += ["--gpu", "0"]
    assert after["args"] == before["args"]
    assert {key: str(value) for key, value in after["resources"]["limits"].items()} == {
        key: str(value) for key, value in before["resources"]["limits"].items()
    }


# The instructions of a Dockerfile, with continued lines as one: [(FROM, ...), (RUN, ...)].
def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "docker" / f"{name}.Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def values(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == instruction]


def setup_of(run: str, **arguments: str) -> str:
    """What a shell makes of it, given arguments of the build."""
    return subprocess.run(
        ["sh", "-c", f"echo {run}"], env=arguments, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_cuda_is_an_argument_of_every_stage_of_the_base_image() -> None:
    words = [word if word == "FROM" else rest for word, rest in instructions("base") if word in ("FROM", "ARG")]
    assert words == ["FROM", "CUDA", "FROM", "CUDA"]
    runs = [run.split(" && ")[0] for run in values("base", "RUN") if run.startswith("./polystill setup")]
    assert [setup_of(run) for run in runs] == ["./polystill setup", "./polystill setup --runtime"]
    assert [setup_of(run, CUDA="1") for run in runs] == [
        "./polystill setup --cuda",
        "./polystill setup --runtime --cuda",
    ]


def test_the_base_image_copies_what_there_is() -> None:
    tracked = set(subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True).stdout.splitlines())
    ignored = set((DEPLOY / "docker" / "base.Dockerfile.dockerignore").read_text().split())
    stages = {stage.split(" AS ")[1] for stage in values("base", "FROM") if " AS " in stage}
    installed = [re.search(r"--prefix (\S+)", run) for run in values("base", "RUN")]
    made = {match[1] for match in installed if match}
    for copy in values("base", "COPY"):
        *sources, _ = (word for word in copy.split() if not word.startswith("--"))
        stage = re.search(r"--from=(\S+)", copy)
        if stage:
            assert stage[1] in stages
            assert set(sources) <= made
        for source in sources if not stage else []:
            assert source == "." or any(file == source or file.startswith(f"{source}/") for file in tracked), source
            assert source.split("/")[0] not in ignored


def installed_programs() -> set[str]:
    return set(
        re.findall(r"polystill_binary\((\S+)", "".join(path.read_text() for path in REPO.glob("*/CMakeLists.txt")))
    )


def test_the_base_image_builds_every_program() -> None:
    (build,) = [run for run in values("base", "RUN") if run.startswith("./polystill build")]
    assert set(build.split()[2:]) == installed_programs()


@pytest.mark.parametrize("role", ["coordinator", "teacher", "student"])
def test_the_image_of_a_role_is_what_the_manifests_start(role: str) -> None:
    (pod, *_) = [pod for pod in pods_of(render(DEPLOY / "base")) if pod.container["image"] == f"polystill-{role}"]
    assert values(role, "FROM") == ["polystill-base"]
    security = pod.spec["securityContext"]
    assert values(role, "USER") == values("base", "USER") == [f"{security['runAsUser']}:{security['runAsGroup']}"]
    assert [port for line in values(role, "EXPOSE") for port in line.split()] == [
        str(port["containerPort"]) for port in pod.container["ports"]
    ]
    (program,) = entrypoint(pod.container["image"])
    assert program == f"/opt/polystill/bin/polystill-{role}"
    assert (BIN / Path(program).name).exists()


def linked_libraries(program: Path) -> set[str]:
    """Names of the system's libraries that a program asks for; what those need in turn, apt knows."""
    dynamic = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    loaded = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    system = set(re.findall(r"(\S+) => (?:/usr)?/lib/", loaded))
    return system & set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))


def test_setup_runtime_installs_what_the_programs_are_linked_with() -> None:
    (packages,) = re.findall(r"^runtime_packages=\(([^)]*)\)", (REPO / "polystill").read_text(), re.MULTILINE)
    libraries = set().union(*(linked_libraries(BIN / program) for program in installed_programs()))
    assert "libgrpc++.so.1.51" in libraries
    patterns = [f"*-linux-gnu/{name}" for name in sorted(libraries)]
    owners = subprocess.run(["dpkg", "-S", *patterns], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^([^:]+):", owners, re.MULTILINE)) <= {"libc6", *packages.split()}
