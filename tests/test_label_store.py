"""`polystill label` and runs that learn from its stores: every record once whatever is killed; an online run's bits."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from polystill import Codec, TeacherClient
from processes import AS_ROOT, BIN, REPO, SAMPLE
from safetensors.numpy import load_file
from teacher_packages import serving, write_package

FAILED, USAGE, INTERRUPTED = 1, 2, 130
CORPUS = SAMPLE.parent / "sample"
LANGUAGES = ["de", "en", "es", "fr", "ja"]
RECORDS_MANY = 3000
KILLS = 5


def label(
    teacher: Path | str, out: Path, *arguments: str, corpus: Path = CORPUS, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "polystill"), "label", "--teacher", str(teacher), "--corpus", str(corpus), "--out", str(out)]
    return subprocess.run([*prefix, *command, *arguments], cwd=REPO, capture_output=True, text=True, timeout=120)


def said(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


def labelled(teacher: Path | str, out: Path, *arguments: str, corpus: Path = CORPUS) -> Path:
    result = label(teacher, out, *arguments, corpus=corpus)
    assert result.returncode == 0, said(result)
    return out


def records(corpus: Path = CORPUS) -> dict[str, dict[str, str]]:
    lines = [json.loads(line) for file in sorted(corpus.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return {line["id"]: line for line in lines}


def files_of(store: Path) -> dict[str, bytes]:
    """All but the logs of the servers."""
    paths = [path for path in store.rglob("*") if path.is_file() and path.parent.name != "logs"]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def package(sample_run: Path) -> Path:
    """The teacher of a run on the sample."""
    return sample_run / "models" / "teacher-english"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of several blocks."""
    folder = tmp_path_factory.mktemp("many")
    texts = [record["text"] for record in records().values()]
    for language in ("de", "fr"):
        lines = [
            json.dumps({"id": f"{language}-{i}", "language": language, "text": f"{texts[i % len(texts)]} {i}"})
            for i in range(RECORDS_MANY // 2)
        ]
        (folder / f"{language}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def slow_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer, so that a job takes long enough to be killed in its middle."""
    return write_package(tmp_path_factory.mktemp("package") / "slow", "transformer", "classification")


def test_labels_are_those_of_the_server_and_read_by_pandas_and_duckdb(package: Path, tmp_path: Path) -> None:
    store = labelled(package, tmp_path / "store", "--reads", "source_text", "--outputs", "logits,embedding")
    expected = records()
    frame = pd.read_parquet(store / "labels")
    assert sorted(frame["id"]) == sorted(expected)
    assert all(expected[row.id]["language"] == row.language for row in frame.itertuples())
    with serving(package, tmp_path / "serve") as address, TeacherClient(address) as client:
        texts = [expected[record]["source_text"] for record in frame["id"]]
        answer = client.label(texts, outputs=["logits", "embedding"], codec=Codec("dense_fp32"))
    for name in ("logits", "embedding"):
        assert np.stack(frame[name].to_list()).astype(np.float32).tobytes() == answer[name].tobytes()
    query = f"select language, count(*) from '{store}/labels/*.parquet' group by 1 order by 1"
    assert duckdb.sql(query).fetchall() == sorted(Counter(row["language"] for row in expected.values()).items())
    manifest = yaml.safe_load((store / "manifest.yaml").read_text())
    assert manifest["format"] == "polystill.labels/1"
    assert manifest["records"] == len(expected)
    assert manifest["spec"]["outputs"] == ["logits", "embedding"]
    assert manifest["reads"] == "source_text"
    assert {part["file"]["name"] for part in manifest["parts"]} == {path.name for path in (store / "labels").iterdir()}


def test_columns_of_other_codecs_are_what_the_server_says(package: Path, tmp_path: Path) -> None:
    expected = records()
    with serving(package, tmp_path / "serve") as address, TeacherClient(address) as client:
        top = labelled(address, tmp_path / "top", "--codec", "top_k", "--k", "2", "--temperature", "2")
        frame = pd.read_parquet(top / "labels")
        texts = [expected[record]["text"] for record in frame["id"]]
        answer = client.label(texts, codec=Codec("top_k", temperature=2.0, k=2)).packed()
        assert np.stack(frame["logits_ids"].to_list()).tolist() == answer.ids.tolist()
        np.testing.assert_array_equal(np.stack(frame["logits_log_probabilities"].to_list()), answer.log_p)
        np.testing.assert_array_equal(np.concatenate(frame["logits_log_rest"].to_list()), answer.log_rest)
        classes = pd.read_parquet(labelled(address, tmp_path / "classes", "--codec", "classes") / "labels")
        logits = client.label([expected[record]["text"] for record in classes["id"]])["logits"]
        assert classes["logits_class"].to_list() == logits.argmax(axis=1).tolist()


def test_token_ids_in_place_of_texts(slow_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(slow_package, package)
    (package / "tokenizer.model").unlink()
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    manifest["signature"]["input"] = "ids"
    (package / "teacher.yaml").write_text(yaml.safe_dump(manifest))
    ids = {f"r{i}": [1 + i % 290, 2, 3][: 1 + i % 3] for i in range(50)}
    corpus = tmp_path / "ids.jsonl"
    lines = [json.dumps({"id": record, "language": "de", "tokens": tokens}) for record, tokens in ids.items()]
    corpus.write_text("\n".join(lines) + "\n")
    store = labelled(package, tmp_path / "store", "--columns", "ids=tokens", corpus=corpus)
    frame = pd.read_parquet(store / "labels")
    assert frame["id"].to_list() == list(ids)
    with serving(package, tmp_path / "serve") as address, TeacherClient(address) as client:
        logits = client.label(list(ids.values()))["logits"]
    assert np.stack(frame["logits"].to_list()).astype(np.float32).tobytes() == logits.tobytes()


def running_label(teacher: Path, out: Path, corpus: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [str(BIN / "polystill"), "label", "--teacher", str(teacher), "--corpus", str(corpus), "--out", str(out)]
    log = (out.parent / f"{out.name}.log").open("ab")
    return subprocess.Popen([*command, *arguments], cwd=REPO, stdout=log, stderr=log)


def finished_parts(out: Path) -> int:
    finished = out / "finished.sha256"
    return finished.read_bytes().count(b"\n") if finished.exists() else 0


@pytest.mark.parametrize("codec", ["dense_fp32", "sampled"])
def test_killed_at_any_moment_and_resumed(slow_package: Path, many: Path, tmp_path: Path, codec: str) -> None:
    flags = ["--codec", codec, "--part-records", "40", "--replicas", "2"]
    whole = labelled(slow_package, tmp_path / "whole", *flags, corpus=many)
    out = tmp_path / "killed"
    # Moments by parts written, so that a faster machine kills in the same places; then a little later, at random.
    moments = random.Random(7)
    parts = RECORDS_MANY // 40
    killed = 0
    for part in sorted(moments.sample(range(1, parts - 8), KILLS)):
        process = running_label(slow_package, out, many, *flags)
        while process.poll() is None and finished_parts(out) < part:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.02)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "manifest.yaml").exists()
    assert killed == KILLS
    # A part that the disk lost, and one that it tore.
    lost, torn = sorted((out / "labels").glob("part-*.parquet"))[:2]
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:-10])
    labelled(slow_package, out, *flags, corpus=many)
    frame = pd.read_parquet(out / "labels")
    assert sorted(frame["id"]) == sorted(records(many))
    assert files_of(out) == files_of(whole)
    again = label(slow_package, out, *flags, corpus=many)
    assert again.returncode == 0, said(again)
    assert files_of(out) == files_of(whole)


def test_ctrl_c_stops_cleanly_and_a_lost_server_is_survived(slow_package: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    flags = ["--part-records", "40", "--replicas", "2"]
    process = running_label(slow_package, out, many, *flags)
    while finished_parts(out) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == INTERRUPTED
    text = (tmp_path / "store.log").read_text()
    assert "the same command goes on with it" in text
    assert not list((out / "labels").glob(".*")), "a temporary file was left"

    process = running_label(slow_package, out, many, *flags)
    before = finished_parts(out)
    while finished_parts(out) < before + 2:
        assert process.poll() is None
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    subprocess.run(["kill", "-KILL", children[0]], check=True)
    assert process.wait(120) == 0, (tmp_path / "store.log").read_text()
    assert "the others go on" in (tmp_path / "store.log").read_text()
    assert sorted(pd.read_parquet(out / "labels")["id"]) == sorted(records(many))


def test_never_mixes_labels(package: Path, slow_package: Path, tmp_path: Path) -> None:
    store = labelled(package, tmp_path / "store", "--where", "pool=B")
    before = files_of(store)
    for arguments, says in [
        (["--where", "pool=B", "--codec", "dense_fp16"], "--codec was 'dense_fp32' and is 'dense_fp16'"),
        (["--where", "pool=A"], "--where was '{pool=B}' and is '{pool=A}'"),
        (["--where", "pool=B", "--reads", "source_text"], "--reads was 'text' and is 'source_text'"),
        (["--where", "pool=B", "--languages", "de"], "--languages was '' and is 'de'"),
    ]:
        result = label(package, store, *arguments)
        assert result.returncode == USAGE, said(result)
        assert says in said(result)
        assert "choose another --out" in said(result)
    other = label(slow_package, store, "--where", "pool=B")
    assert other.returncode == USAGE
    assert "--teacher (digest) was" in said(other)
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS, corpus)
    with (corpus / "de.jsonl").open("a") as more:
        more.write(json.dumps(next(iter(records().values())) | {"id": "new"}) + "\n")
    changed = label(package, store, "--where", "pool=B", corpus=corpus)
    assert changed.returncode == USAGE
    assert "--corpus (digest of its files and columns) was" in said(changed)
    assert files_of(store) == before


def test_a_full_disk_is_said(package: Path, many: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=60k none {disk} && exec "$0" "$@"'
    prefix = ("unshare", *AS_ROOT, "--mount", "sh", "-c", script)
    result = label(package, disk / "store", "--part-records", "100", corpus=many, prefix=prefix)
    assert result.returncode == FAILED, said(result)
    assert "No space left" in said(result)
    assert str(disk) in said(result)
    assert "the same command goes on" in said(result)


def test_a_record_whose_logits_are_no_numbers_is_named(tmp_path: Path, many: Path) -> None:
    torch = pytest.importorskip("torch")
    package = write_package(tmp_path / "package", "subword_bag", "classification")
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file

    weights = load_tensors(package / "model.safetensors")
    # Finite, as a package must be, and beyond what a float holds once multiplied.
    weights["head.weight"] = torch.full_like(weights["head.weight"], 3e38)
    weights["norm.weight"] = torch.full_like(weights["norm.weight"], 3e38)
    save_file(weights, package / "model.safetensors")
    result = label(package, tmp_path / "store", corpus=many)
    assert result.returncode == FAILED, said(result)
    assert re.search(r"record '(de|fr)-\d+'", said(result)), said(result)
    assert not (tmp_path / "store" / "manifest.yaml").exists()


# Learning from a store.


def write_spec(path: Path, teacher: dict[str, Any], package: Path, **loss: object) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"] = [{"name": "english", "reads": "source_text"} | teacher]
    spec["tokenizer"]["path"] = str(package / "tokenizer.model")
    spec["baselines"] = []
    spec["student"] |= {"epochs": 6}
    spec["student"]["losses"] = [{"kind": "soft_label", "temperature": 2.0} | loss]
    spec["output"] = str(path.with_suffix(""))
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def polystill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "polystill"), *arguments], cwd=REPO, capture_output=True, text=True, timeout=120, check=False
    )


def run(spec: Path) -> Path:
    result = polystill("run", str(spec))
    assert result.returncode == 0, said(result)
    return spec.with_suffix("")


def last_loss(output: Path) -> float:
    status = json.loads((output / "status.json").read_text())
    return float(next(stage["loss"] for stage in status["stages"] if stage["name"] == "distilled"))


CODECS: dict[str, tuple[list[str], dict[str, object]]] = {
    "dense_fp32": (["--codec", "dense_fp32"], {"codec": "dense_fp32"}),
    "sampled": (
        ["--codec", "sampled", "--draws-per-token", "16", "--temperature", "2", "--seed", "7"],
        {"codec": "sampled", "draws_per_token": 16},
    ),
    "top_k": (["--codec", "top_k", "--k", "2", "--temperature", "2"], {"codec": "top_k", "k": 2}),
    "hidden_head": (["--codec", "hidden_head"], {"codec": "hidden_head"}),
}


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_run_from_a_store_has_the_bits_of_one_online(package: Path, tmp_path: Path, codec: str) -> None:
    flags, loss = CODECS[codec]
    words = ["--reads", "source_text", "--where", "split=train", "--part-records", "7", *flags]
    store = labelled(package, tmp_path / "store", *words)
    online = run(write_spec(tmp_path / "online.yaml", {"package": str(package)}, package, **loss))
    offline = run(write_spec(tmp_path / "offline.yaml", {"store": str(store)}, package, **loss))
    assert (online / "logs" / "teacher-english-0.log").exists()
    assert not list((offline / "logs").glob("teacher-*"))
    weights = load_file(online / "models" / "distilled" / "model.safetensors")
    for name, tensor in load_file(offline / "models" / "distilled" / "model.safetensors").items():
        assert tensor.tobytes() == weights[name].tobytes(), name
    assert last_loss(offline) == last_loss(online)
    report = json.loads((offline / "report.json").read_text())
    assert report["labels"]["count"] == json.loads((online / "report.json").read_text())["labels"]["count"]
    assert report["teacher"]["digest"] == yaml.safe_load((store / "manifest.yaml").read_text())["teacher"]["digest"]


def test_what_a_store_does_not_hold_is_said_before_anything_starts(package: Path, tmp_path: Path) -> None:
    store = labelled(package, tmp_path / "store", "--reads", "source_text", "--where", "pool=B", "--languages", "de,fr")

    def check(says: str, command: str = "check", teacher: dict[str, Any] | None = None, **loss: object) -> None:
        given = {"store": str(store)} | (teacher or {})
        spec = write_spec(tmp_path / "run.yaml", given, package, **({"codec": "dense_fp32"} | loss))
        words = ["run", str(spec), "--dry-run"] if command == "dry-run" else [command, str(spec)]
        result = polystill(*words)
        assert result.returncode in (FAILED, USAGE), said(result)
        assert says in said(result), said(result)

    check("holds labels of codec: dense_fp32, the loss asks for dense_fp16", codec="dense_fp16")
    check("the store's teacher read source_text, the run file says text", teacher={"reads": "text"})
    check("the store holds logits and no embedding", kind="embedding", temperature=1.0)
    check("goes with train or package; a teacher with a store", teacher={"replicas": 2})
    check("write exactly one", teacher={"package": str(package)})
    check("holds 0 of 24 records of language es", command="dry-run")
    check("holds 0 of 24 records of language es", command="run")
    (store / "manifest.yaml").rename(store / "job.yaml")
    check("its labels are not complete; go on with the `polystill label` that began it")


def test_a_torn_part_stops_the_run_and_is_named(package: Path, tmp_path: Path) -> None:
    store = labelled(package, tmp_path / "store", "--reads", "source_text", "--where", "pool=B")
    part = next((store / "labels").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-3] + b"xxx")
    spec = write_spec(tmp_path / "run.yaml", {"store": str(store)}, package, codec="dense_fp32")
    result = polystill("run", str(spec))
    assert result.returncode == FAILED
    assert part.name in said(result), said(result)
    assert "torn" in said(result)
