"""polystill-export: a HuggingFace model, or a TorchScript module, as a teacher package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from polystill.errors import ExportError
from polystill.program import Parser, comma_list, run

EXAMPLES = """examples:
  polystill-export distilbert-base-uncased-finetuned-sst-2-english --out teachers/sentiment
      a classifier; labels from its config, text in, since its tokeniser is WordPiece
  polystill-export sentence-transformers/all-MiniLM-L6-v2 --out teachers/minilm
      an encoder without a head: gives `embedding`, pooled as the model says
  polystill-export my-encoder --features embedding,hidden.6 --pooling cls --normalize --out teachers/mine
  polystill-export my-model --format aot_inductor --out teachers/fast
      native code for this kind of CPU, faster to serve; compiling takes minutes
  polystill teacher --package teachers/minilm --listen 127.0.0.1:7070

exit codes: 0 fine, 1 failed (nothing is left behind), 2 wrong usage, 130 interrupted."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="polystill-export",
        description="Makes a teacher package of a HuggingFace model, and checks that it answers as the model does.",
        epilog=EXAMPLES,
    )
    made.add_argument("model", help="a folder, or a name at HuggingFace's hub")
    made.add_argument("--out", required=True, type=Path, help="folder of the package; appears whole or not at all")
    made.add_argument("--overwrite", action="store_true", help="replace a package that is there")
    made.add_argument("--name", help="name of the teacher; that of the folder when left out")
    made.add_argument("--format", default="torchscript", choices=("torchscript", "aot_inductor"))
    tasks = ("classification", "binary", "multi_label", "token_classification", "masked_lm", "features")
    made.add_argument(
        "--task", choices=tasks, help="what the logits say; features: none; by default as its config says"
    )
    made.add_argument("--labels", type=comma_list, help="labels in the order of the logits, between commas")
    made.add_argument(
        "--features",
        type=comma_list,
        default=[],
        help="what to give beside logits: embedding, hidden.0, hidden.1 ...; embedding where there are no logits",
    )
    made.add_argument(
        "--pooling", choices=("mean", "cls"), help="how an embedding is made; by default as its folder says"
    )
    normalize = made.add_mutually_exclusive_group()
    normalize.add_argument("--normalize", action="store_true", default=None, help="embeddings of length 1")
    normalize.add_argument("--no-normalize", dest="normalize", action="store_false")
    made.add_argument("--max-length", type=int, help="tokens kept of an input; by default as many as the model takes")
    made.add_argument("--input", choices=("text", "ids"), help="by default text where a package can hold the tokeniser")
    made.add_argument("--attention", choices=("sdpa", "eager"), help="how attention is computed")
    made.add_argument("--threads", type=int, default=1, help="of aot_inductor: those of a compiled forward")
    made.add_argument("--tolerance", type=float, default=1e-4, help="largest difference from the model (default 1e-4)")
    return made


def export(arguments: argparse.Namespace) -> int:
    from polystill import exporter, huggingface

    options = huggingface.Options(
        task=arguments.task,
        labels=arguments.labels,
        features=arguments.features,
        pooling=arguments.pooling,
        normalize=arguments.normalize,
        max_length=arguments.max_length,
        input=arguments.input,
        attention=arguments.attention,
    )
    if arguments.max_length is not None and arguments.max_length < 1:
        raise ExportError("--max-length: must be at least 1")
    if arguments.threads < 1:
        raise ExportError("--threads: must be at least 1")
    loaded = huggingface.load(arguments.model, options)
    for note in loaded.notes:
        print(note)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = None
        if loaded.tokenizer is not None:
            name, content = loaded.tokenizer
            tokenizer = Path(folder, name)
            tokenizer.write_bytes(content)
            print(f"input: text, by {name}")
        exporter.export(
            loaded.module,
            arguments.out,
            loaded.signature,
            name=arguments.name,
            format=arguments.format,
            method="trace",
            tokenizer=tokenizer,
            overwrite=arguments.overwrite,
            tolerance=arguments.tolerance,
            threads=arguments.threads,
            log=lambda line: print(line, flush=True),
        )
    print(f"{arguments.out}: written")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return run(parser(), export, arguments)


if __name__ == "__main__":
    sys.exit(main())
