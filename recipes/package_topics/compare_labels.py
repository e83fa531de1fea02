"""Compares students that learned from labels of different codecs, by their loss against the whole teacher.

With PYTHONPATH=python:

python -m recipes.package_topics.compare_labels --train       trains what is missing: three codecs, three seeds
python -m recipes.package_topics.compare_labels --seeds 7 8   prints what is there

The loss is KL(teacher || student) at hidden tokens of test records, at temperature 1, from all logits of both models.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polystill
import torch

from recipes.package_topics.hidden_tokens import HiddenTokens, hide_tokens, logits_of, read_texts

REPO = Path(__file__).resolve().parent.parent.parent
BIN = Path(os.environ.get("POLYSTILL_BIN", REPO / "build" / "release" / "bin"))
RECIPE = "recipes/package_topics/masked_lm_student.yaml"
TEACHER_RECIPE = "recipes/package_topics/masked_lm.yaml"
TEACHER = "build/release/masked_lm"
# What of the recipe's loss is changed. Top-k of 15 ids has 63 bytes a token, sampled labels have at most 64 on average.
LABELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sampled": {"codec": "sampled", "draws_per_token": 36},
    "top_k": {"codec": "top_k", "k": 15},
}
TOKENS = 8192
SEED_OF_TOKENS = 1


@dataclass(frozen=True)
class Losses:
    """Means over the hidden tokens, nats."""

    divergence: float  # KL(teacher || student)
    cross_entropy: float  # of the student with the teacher: the teacher's entropy more
    gold: float  # of the student with the token that stood there


def evaluate(teacher: polystill.Student, student: polystill.Student, tokens: HiddenTokens) -> Losses:
    """In float64 from the models' float32 logits."""
    sums = torch.zeros(3, dtype=torch.float64)
    first = 0
    for t, s in zip(logits_of(teacher, tokens), logits_of(student, tokens), strict=True):
        log_p, log_q = torch.log_softmax(t.double(), 1), torch.log_softmax(s.double(), 1)
        p = log_p.exp()
        right = log_q.gather(1, tokens.gold[first : first + len(t), None])
        sums += torch.stack([(p * (log_p - log_q)).sum(), -(p * log_q).sum(), -right.sum()])
        first += len(t)
    return Losses(*(sums / first).tolist())


def run_folder(out: Path, label: str, seed: int) -> Path:
    return out / f"{label}-{seed}"


def polystill_run(recipe: str, output: Path, changes: Iterable[str]) -> None:
    command = [str(BIN / "polystill"), "run", recipe, "--resume-or-start"]
    for change in (f"output={output}", *changes):
        command += ["--set", change]
    subprocess.run(command, cwd=REPO, check=True)


def train(options: argparse.Namespace) -> None:
    """Every run that is not done yet."""
    if not (options.teacher / "report.json").exists():
        polystill_run(TEACHER_RECIPE, options.teacher, [])
    package = options.teacher / "models" / "distilled"
    for seed in options.seeds:
        for label, changes in LABELS.items():
            folder = run_folder(options.runs, label, seed)
            if not (folder / "report.json").exists():
                settings = [f"student.losses.0.{key}={value}" for key, value in changes.items()]
                settings += [f"seed={seed}", f"teachers.0.package={package}"]
                settings += [f"tokenizer.path={package / 'tokenizer.model'}"]
                polystill_run(RECIPE, folder, settings + options.set)


def label_bytes(folder: Path) -> float:
    """Of all labels that the run learned from."""
    return float(json.loads((folder / "report.json").read_text())["labels"]["bytes"])


def compare(options: argparse.Namespace) -> dict[str, Any]:
    teacher = polystill.load_student(options.teacher)
    tokens = hide_tokens(teacher, read_texts(options.corpus), options.tokens, SEED_OF_TOKENS)
    runs = []
    for seed in options.seeds:
        folders = {label: run_folder(options.runs, label, seed) for label in LABELS}
        size = {label: label_bytes(folder) for label, folder in folders.items()}
        # The runs of a seed hide the same tokens, of which a dense label has two bytes a logit.
        labelled = size["dense"] / (2 * teacher.signature.vocab_size)
        size["sampled"] += labelled  # the length of each row, which travels beside them
        for label, folder in folders.items():
            losses = evaluate(teacher, polystill.load_student(folder), tokens)
            runs.append({"labels": label, "seed": seed, "bytes": size[label] / labelled} | vars(losses))
    return {"runs": runs, "tokens": len(tokens)} | ratios(runs)


def ratios(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss of the sampled labels' student by the others', of each seed, and their mean."""
    of = {(run["labels"], run["seed"]): run for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    found: dict[str, Any] = {}
    for name, other in (("loss_vs_dense", "dense"), ("loss_vs_topk", "top_k")):
        each = [of["sampled", seed]["divergence"] / of[other, seed]["divergence"] for seed in seeds]
        entropy = [of["sampled", seed]["cross_entropy"] / of[other, seed]["cross_entropy"] for seed in seeds]
        found[name] = {
            "mean": statistics.mean(each),
            "seeds": each,
            "cross_entropy": statistics.mean(entropy),
        }
    return found


def markdown(found: dict[str, Any]) -> str:
    lines = ["| labels | seed | bytes a token | KL from the teacher | cross-entropy with it | with the gold token |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for run in found["runs"]:
        numbers = " | ".join(f"{run[key]:.4f}" for key in ("divergence", "cross_entropy", "gold"))
        lines.append(f"| {run['labels']} | {run['seed']} | {run['bytes']:.1f} | {numbers} |")
    lines += ["", "| ratio | mean of the seeds | each seed | of the cross-entropies |", "|---|---:|---:|---:|"]
    for name in ("loss_vs_dense", "loss_vs_topk"):
        ratio = found[name]
        each = ", ".join(f"{value:.4f}" for value in ratio["seeds"])
        lines.append(f"| {name} | {ratio['mean']:.4f} | {each} | {ratio['cross_entropy']:.4f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.package_topics.compare_labels", description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train what is missing first, a run after the other")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9], help="of the runs (7 8 9)")
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "masked-lm-labels", help="folder of the runs")
    parser.add_argument("--teacher", type=Path, default=REPO / TEACHER, help="folder of the teacher's run")
    parser.add_argument("--corpus", type=Path, default=REPO / "data" / "package_topics", help="folder of the corpus")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="hidden tokens to evaluate on (%(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the students' run file")
    options = parser.parse_args(arguments)
    try:
        if options.train:
            train(options)
        found = compare(options)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError, polystill.PolystillError) as error:
        print(f"compare_labels: {error}", file=sys.stderr)
        return 1
    print(markdown(found))
    (options.runs / "compare.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
