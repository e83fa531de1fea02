"""What gradients of compressed labels are worth, per codec and size: bytes, bias, error, angle, time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.label_logits import Chunk, model_chunks, student_of, zipf_chunks
from benchmarks.label_statistics import (
    DEGREES,
    Exact,
    Products,
    bytes_for,
    error_at,
    sampled_products,
    top_k_products,
    worst_of_unbiased,
)
from benchmarks.ours import BIN, REPO
from benchmarks.pairing import Figure, aligned

# The real loss's products by those that follow from the label: float32 against float64.
LOSS_TOLERANCE = 1e-3
# The rival's draws by ours, for its error at as many bytes.
RIVAL_DRAWS = (0.8, 1.0, 1.25)

SHARED_MEMORY = Path("/dev/shm")

Setting = dict[str, Any]


def name_of(setting: Setting) -> str:
    size = setting.get("k", setting.get("draws", ""))
    return f"{setting['codec']} {size}".strip()


@dataclass
class Line:
    """A codec of one size on some logits: what is summed over the chunks."""

    setting: Setting
    students: int
    bytes: int = 0  # of all passes
    encode_ns: float = 0
    decode_ns: float = 0
    # Of each student, all passes.
    products: list[Products] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.products = [Products() for _ in range(self.students)]

    @property
    def passes(self) -> int:
        return int(self.setting.get("passes", 1))


@dataclass
class Case:
    """Some logits: lines of the table, by the real losses; and labels of several passes and of more sizes."""

    name: str
    lines: list[Line]
    labels: list[Line]
    divergences: list[list[Tensor]] = field(default_factory=list)
    entropy: float = 0  # sum over the positions


def settings_of(settings: dict[str, Any], *, hidden: bool) -> tuple[list[Setting], list[Setting]]:
    """Those whose gradients are taken by the real loss, and those of which labels are collected."""
    gradients: list[Setting] = [{"codec": codec} for codec in settings["dense"]]
    if hidden:
        gradients.append({"codec": "hidden_head"})
    gradients += [{"codec": "top_k", "k": k} for k in settings["k"]]
    gradients += [{"codec": "sampled", "draws": draws} for draws in settings["draws"]]
    labels: list[Setting] = [{"codec": "top_k", "k": k} for k in settings["k"] + settings["more"]]
    for draws in settings["draws"]:
        labels.append({"codec": "sampled", "draws": draws, "passes": settings["passes"]})
        for factor in RIVAL_DRAWS:
            rival = {"codec": "independent", "draws": round(factor * draws), "rival_of": draws}
            labels.append(rival | {"passes": settings["passes"]})
    for codec in ("sampled", "independent"):
        labels += [{"codec": codec, "draws": draws} for draws in settings["more"]]
    return gradients, labels


class Program:
    """codec-quality, which puts one chunk after the other through codecs and losses."""

    def __init__(self) -> None:
        command = [str(BIN / "codec-quality")]
        self._folder = tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
        self._process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def measure(self, tensors: dict[str, Tensor], wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What it prints and what it writes."""
        files = {name: str(Path(self._folder.name) / name) for name in ("input", "output")}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, files["input"])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted | files) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"codec-quality ended with status {self._process.wait()}")
        return json.loads(answer), load_file(files["output"])


def products_of(setting: Setting, exact: Exact, student: int, label: dict[str, Tensor]) -> Tensor:
    """Of the gradients that follow from labels, without the loss."""
    if setting["codec"] == "top_k":
        rows = len(exact.p)
        ids, numbers = label["ids"].view(rows, -1), label["numbers"].view(rows, -1)
        return top_k_products(exact, student, ids, numbers[:, :-1], numbers[:, -1])
    return sampled_products(exact, student, label["ids"], label["counts"], label["offsets"], setting["draws"])


def parts_of(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(name): tensor for key, tensor in tensors.items() if key.startswith(name)}


def check_loss(line: Line, taken: Tensor, said: Tensor, exact: Tensor) -> None:
    """The real loss's gradient must be the one that its label says: else its statistics are not those of the label."""
    off = ((taken - said).abs().amax(1) / exact).max().item()
    if off > LOSS_TOLERANCE:
        raise RuntimeError(f"{name_of(line.setting)}: the loss's gradient is not that of its label, off by {off:.2g}")


def wanted_of(
    first: int, settings: dict[str, Any], gradients: list[Line], labels: list[Line], timings: int = 1
) -> dict[str, Any]:
    """What the program is told beside the files."""
    return {
        "first_row": first,
        "temperature": settings["temperature"],
        "seed": settings["seed"],
        "timings": timings,
        "gradients": [line.setting for line in gradients],
        "labels": [line.setting for line in labels],
    }


def add_chunk(case: Case, chunk: Chunk, settings: dict[str, Any], program: Program) -> None:
    seeds = [settings["seed"] * 7919 + 31 * chunk.first + number for number in range(len(settings["kl"]))]
    students = [student_of(chunk.teacher, kl, seed) for kl, seed in zip(settings["kl"], seeds, strict=True)]
    exact = Exact.of(chunk.teacher, students, settings["temperature"])
    case.divergences.append([one.divergence for one in exact.students])
    case.entropy += exact.entropy.sum().item()
    tensors = {"teacher": chunk.teacher, **chunk.head}
    for number, student in enumerate(students):
        tensors |= {f"student.{number}": student, f"gradient.{number}": exact.students[number].gradient}
    report, found = program.measure(tensors, wanted_of(chunk.first, settings, case.lines, case.labels))
    for number, (line, measured) in enumerate(zip(case.lines, report["gradients"], strict=True)):
        line.bytes += measured["bytes"]
        for student, products in enumerate(line.products):
            products.add(found[f"gradients.{number}.products.{student}"], exact.students[student].gg)
    for number, (line, measured) in enumerate(zip(case.labels, report["labels"], strict=True)):
        line.bytes += measured["bytes"]
        add_labels(case, line, exact, parts_of(found, f"labels.{number}."))


def add_labels(case: Case, line: Line, exact: Exact, passes: dict[str, Tensor]) -> None:
    checked = next((one for one in case.lines if same_label(one.setting, line.setting)), None)
    for number in range(line.passes):
        label = parts_of(passes, f"{number}.")
        for student, products in enumerate(line.products):
            found = products_of(line.setting, exact, student, label)
            products.add(found, exact.students[student].gg)
            if checked is not None and number == 0:  # the draws that the loss read too
                taken = checked.products[student].rows[-1][:, :3]
                check_loss(checked, taken, found, exact.students[student].gg)


def same_label(one: Setting, other: Setting) -> bool:
    return all(one.get(key) == other.get(key) for key in ("codec", "k", "draws"))


def cases(settings: dict[str, Any]) -> dict[str, Callable[[], Iterator[Chunk]]]:
    positions, seed = settings["positions"], settings["seed"]
    found: dict[str, Callable[[], Iterator[Chunk]]] = {"model": partial(model_chunks, settings, positions, seed)}
    synthetic = settings["synthetic"]
    for entropy in synthetic["entropies"]:
        found[f"zipf, {entropy} nats"] = partial(zipf_chunks, synthetic["classes"], entropy, positions, seed)
    return found


def empty_case(name: str, settings: dict[str, Any], *, hidden: bool) -> Case:
    gradients, labels = settings_of(settings, hidden=hidden)
    students = len(settings["kl"])
    return Case(name, [Line(one, students) for one in gradients], [Line(one, students) for one in labels])


def timed_case(name: str, chunk: Chunk, settings: dict[str, Any]) -> Case:
    """With the times of encoding and decoding a chunk; nothing else runs meanwhile."""
    case = empty_case(name, settings, hidden="hidden" in chunk.head)
    wanted = wanted_of(chunk.first, settings, case.lines, [], settings["timings"])
    with Program() as program:
        report, _ = program.measure({"teacher": chunk.teacher, **chunk.head}, wanted)
    for line, measured in zip(case.lines, report["gradients"], strict=True):
        line.encode_ns, line.decode_ns = measured["encode_ns"], measured["decode_ns"]
    return case


def measure_case(case: Case, chunks: Iterator[Chunk], settings: dict[str, Any]) -> None:
    with Program() as program:
        for chunk in chunks:
            add_chunk(case, chunk, settings, program)
            if sys.stderr.isatty():
                done = chunk.first + len(chunk.teacher)
                told = f"{case.name}: {done} of {settings['positions']} positions"
                print(f"\r\033[K  {told}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def biases(case: Case, line: Line) -> list[Products]:
    """What the bias is taken from: all passes where draws differ from one to another, else the loss's gradients."""
    if line.setting["codec"] != "sampled":
        return line.products
    return next(labels for labels in case.labels if same_label(labels.setting, line.setting)).products


def rows_of(case: Case, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table: a codec, a size, a student."""
    positions, rows = settings["positions"], []
    for line in case.lines:
        for student, kl in enumerate(settings["kl"]):
            products, bias = line.products[student], biases(case, line)[student]
            rows.append(
                {
                    "logits": case.name,
                    "student_kl": kl,
                    "label": name_of(line.setting),
                    "bytes": line.bytes / positions,
                    "bias": bias.bias(),
                    "bias_in_se": bias.bias_in_se(),
                    "error": products.error(),
                    "degrees": products.degrees(),
                    "norm": products.norm(),
                    "encode_ns": line.encode_ns,
                    "decode_ns": line.decode_ns,
                }
            )
    return rows


def rivals_of(case: Case, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Sampled labels against independent draws of as many bytes: the error, p - c / N, is every student's."""
    positions, rows = settings["positions"], []
    for draws in settings["draws"]:
        ours = next(line for line in case.labels if same_label(line.setting, {"codec": "sampled", "draws": draws}))
        theirs = [
            line
            for line in case.labels
            if line.setting["codec"] == "independent" and line.setting.get("rival_of") == draws
        ]
        size = ours.bytes / ours.passes / positions
        sizes = [(line.bytes / line.passes / positions, line.products[0].error()) for line in theirs]
        error, rival = ours.products[0].error(), error_at(size, sizes)
        rows.append({"logits": case.name, "draws": draws, "bytes": size, "ratio": error / rival})
    return rows


def sizes_for(case: Case, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The bytes for so many degrees, of codecs that have a size."""
    rows = []
    for student, kl in enumerate(settings["kl"]):
        row: dict[str, Any] = {"logits": case.name, "student_kl": kl}
        for codec in ("sampled", "independent", "top_k"):
            lines = [line for line in case.labels if line.setting["codec"] == codec]
            bytes_and_degrees = [
                (line.bytes / line.passes / settings["positions"], line.products[student].degrees()) for line in lines
            ]
            row[codec] = bytes_for(DEGREES, bytes_and_degrees)
        rows.append(row)
    return rows


FORMATS = {"bytes": ".1f", "bias": ".1e", "bias_in_se": ".2f", "error": ".3g", "degrees": ".3g", "norm": ".3f"}
FORMATS |= {"kl": ".3f", "encode_ns": ".0f", "decode_ns": ".0f", "ratio": ".3f", "entropy": ".3f"}


def printed(rows: list[dict[str, Any]]) -> str:
    cells = [[format(value, FORMATS.get(key.split()[0], "")) for key, value in row.items()] for row in rows]
    return aligned([[key.replace("_", " ") for key in rows[0]], *cells])


def tables_of(measured: list[Case], settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {"logits": [], "labels": [], "rivals": [], "five_degrees": []}
    for case in measured:
        kls = [torch.cat(list(each)) for each in zip(*case.divergences, strict=True)]
        tables["logits"].append(
            {"logits": case.name, "entropy": case.entropy / settings["positions"]}
            | {f"kl {kl}": found.mean().item() for kl, found in zip(settings["kl"], kls, strict=True)}
        )
        tables["labels"] += rows_of(case, settings)
        tables["rivals"] += rivals_of(case, settings)
        tables["five_degrees"] += sizes_for(case, settings)
    return tables


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Figure]:
    settings = workload["codecs"]
    torch.set_num_threads(1)  # cases go side by side
    chunks_of = cases(settings)
    measured = [timed_case(name, next(chunks()), settings) for name, chunks in chunks_of.items()]
    with ThreadPoolExecutor(workload["cores"]) as pool:
        jobs = [pool.submit(measure_case, case, chunks_of[case.name](), settings) for case in measured]
        for job in jobs:
            job.result()
    tables = tables_of(measured, settings)
    for rows in tables.values():
        print(printed(rows), end="\n\n")
    sampled = [abs(row["bias_in_se"]) for row in tables["labels"] if row["label"].startswith("sampled")]
    worst = f"of {len(sampled)}; unbiased ones stay below {worst_of_unbiased(len(sampled)):.2f} with 95%"
    return [
        Figure("bias_in_se", max(sampled), f"worst {worst}", tables),
        Figure("error_vs_multinomial", max(row["ratio"] for row in tables["rivals"]), "worst over the table"),
    ]
