"""``minimind export``: hand trained weights over to other programs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minimind.cli.common_flags import add_json_flag, add_weight_flags
from minimind.errors import EXIT_DONE, MiniMindError, require
from minimind.system.command_line import Parser
from minimind.system.terminal import print_json, size_text

FORMATS = {
    "hf": "a Qwen3 or Qwen3-MoE folder, for anything that loads Hugging Face models",
    "hf-minimind": "a folder with MiniMind's own code (trust_remote_code)",
    "pth": "MiniMind's weight file, from a checkpoint or a folder",
    "onnx": "a folder with onnx/model.onnx, as Optimum and transformers.js have it",
    "web": "a static folder that chats in a browser, in English and Chinese",
    "tensorrt": "that folder and an engine for this machine's GPU",
    "gguf": "one file for llama.cpp, Ollama and others: weights and tokenizer",
}
"""Format → what it is."""

DTYPES = ("auto", "float32", "bfloat16", "float16", "q8_0")
VARIANTS = ("fp16", "q8", "q4")
LARGEST_LOGIT_DIFFERENCE = 1e-5
LARGEST_ONNX_DIFFERENCE = 1e-4
_SIZE = re.compile(r"\d+(\.\d+)?(KB|MB|GB|TB)")

EXAMPLES = """\
Examples:
  minimind export --weight out/pretrain_512.pth --format hf --out exported/hf
  minimind export --weight checkpoints/pretrain_512.pt --format pth --out out/best_512.pth
  minimind export --weight out/pretrain_512.pth --format onnx --out exported/onnx
  minimind export --weight out/pretrain_512.pth --format web --out exported/web
  minimind export --weight out/pretrain_512.pth --format gguf --dtype q8_0 --out minimind.gguf
"""


def build_parser() -> Parser:
    formats = "\n".join(f"  {name:<12} {text}" for name, text in FORMATS.items())
    parser = Parser(
        prog="minimind export",
        description=f"Write trained weights in another form.\n\nformats:\n{formats}",
        epilog=EXAMPLES,
    )
    add_weight_flags(parser)
    parser.flag("format", required=True, choices=list(FORMATS), help="what to write (see above)")
    parser.flag("out", required=True, type=Path, metavar="PATH", help="file or folder to write")
    parser.flag(
        "dtype",
        choices=DTYPES,
        default="auto",
        help="precision of the written weights (default: as they are stored; pth: float16; onnx "
        "and tensorrt: always float32); q8_0 is gguf's 8 bits",
    )
    parser.flag(
        "max_shard_size",
        default="5GB",
        metavar="SIZE",
        help="split hf weights into files of at most this size (default: 5GB)",
    )
    parser.flag(
        "yarn",
        action="store_true",
        help="extend the context with YaRN (2,048 → 32,768 tokens) in what is written",
    )
    parser.flag(
        "no_kv_cache",
        action="store_true",
        help="an ONNX graph that reads whole texts and keeps nothing: to score, not to write",
    )
    parser.flag(
        "max_batch_size", type=int, default=8, metavar="N", help="rows for tensorrt (default: 8)"
    )
    parser.flag(
        "max_length",
        type=int,
        default=2048,
        metavar="N",
        help="tokens of a row for tensorrt, prompt and answer together (default: 2048)",
    )
    parser.flag(
        "no_check",
        action="store_true",
        help="do not load what was written and compare it with the model",
    )
    parser.flag("force", action="store_true", help="replace an earlier export of this name")
    parser.flag(
        "variants",
        nargs="+",
        choices=VARIANTS,
        default=[],
        metavar="VARIANT",
        help="onnx: smaller graphs beside model.onnx: fp16, q8 (8 bits), q4 (4 bits); "
        "web: the one that the page loads (default: q8)",
    )
    parser.flag(
        "eval_data_path",
        nargs="+",
        default=[],
        metavar="PATH",
        help="onnx and web: held-out text, on which every graph is scored",
    )
    parser.flag(
        "runtime",
        type=Path,
        metavar="DIR",
        help="web: take the browser's runtime from here, not from npm",
    )
    parser.flag(
        "license",
        default="unknown",
        metavar="ID",
        help="the weights' licence for the model card, as the hub calls it (default: unknown)",
    )
    parser.flag(
        "language",
        nargs="+",
        default=[],
        metavar="CODE",
        help="languages for the model card (default: zh and en by the letters of the run's data)",
    )
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    require(
        _SIZE.fullmatch(args.max_shard_size) is not None,
        f"--max_shard_size must be like 500MB or 5GB, but is {args.max_shard_size!r}",
    )
    _check_flags(args)
    from minimind.export.target import check_target

    check_target(args.out, args.force)
    writers: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "hf": _export_folder,
        "hf-minimind": _export_folder,
        "pth": _export_pth,
        "onnx": _export_onnx,
        "web": _export_web,
        "tensorrt": _export_onnx,
        "gguf": _export_gguf,
    }
    report = {"format": args.format, "out": str(args.out), **writers[args.format](args)}
    report["files"] = _files(args.out)
    if args.json:
        print_json(report)
    else:
        _print(report)
    return EXIT_DONE


def _check_flags(args: argparse.Namespace) -> None:
    name = f"--format {args.format}"
    if args.format in ("pth", "gguf"):
        ending = f".{args.format}"
        require(
            not args.out.is_dir() and args.out.suffix == ending,
            f"--out {args.out}: {name} writes a file; name it NAME{ending}",
        )
    require(args.dtype != "q8_0" or args.format == "gguf", f"--dtype q8_0 is gguf's, not {name}'s")
    if args.format in ("onnx", "web", "tensorrt"):
        require(args.dtype in ("auto", "float32"), f"{name} writes float32, not {args.dtype}")
    else:
        require(not args.no_kv_cache, f"--no_kv_cache is for onnx and tensorrt, not for {name}")
    if args.format not in ("onnx", "web"):
        for flag in ("variants", "eval_data_path"):
            require(not getattr(args, flag), f"--{flag} is for onnx and web, not for {name}")
    require(args.runtime is None or args.format == "web", f"--runtime is for web, not for {name}")
    if args.format == "web":
        require(not args.no_kv_cache, "--no_kv_cache: what writes text needs the cache")
        require(len(args.variants) <= 1, "--variants: a page loads one graph; name one")
    require(args.max_batch_size > 0, f"--max_batch_size is 1 or more, not {args.max_batch_size}")
    require(args.max_length > 1, f"--max_length is 2 or more, not {args.max_length}")


def _files(out: Path) -> dict[str, int]:
    """Name → bytes of everything that was written."""
    if out.is_file():
        return {out.name: out.stat().st_size}
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.stat().st_size for path in files}


def _open(args: argparse.Namespace) -> tuple[Any, Any]:
    from minimind.weights.pretrained import open_pretrained

    source = open_pretrained(
        args.weight, args.tokenizer_path, args.num_experts_per_tok, args.allow_other_tokenizer
    )
    if args.yarn:
        source.config.inference_rope_scaling = True
    # Servers make room for as many.
    source.config.max_position_embeddings = source.context
    return source, source.build()


def _dtype(args: argparse.Namespace, stored: Any) -> Any:
    import torch

    return stored if args.dtype == "auto" else getattr(torch, args.dtype)


def _export_folder(args: argparse.Namespace) -> dict[str, Any]:
    from transformers.utils import logging as transformers_logging

    from minimind.export.about import describe
    from minimind.export.hf import (
        largest_logit_difference,
        load_exported,
        round_weights,
        write_minimind,
        write_qwen3,
    )
    from minimind.export.target import new_folder

    transformers_logging.disable_progress_bar()
    source, model = _open(args)
    dtype = _dtype(args, source.dtype)
    write = write_qwen3 if args.format == "hf" else write_minimind
    about = describe(source, args.license, args.language)
    difference = None
    with new_folder(args.out, args.force) as folder:
        round_weights(model, dtype)
        write(source, model, folder, dtype, args.max_shard_size, about)
        if not args.no_check:
            difference = largest_logit_difference(model, load_exported(folder))
            if not difference <= LARGEST_LOGIT_DIFFERENCE:
                raise MiniMindError(
                    f"the exported model differs from its source by {difference:.3g} in its logits"
                )
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "largest_logit_difference": difference,
    }


def _export_pth(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from minimind.export.pth import write_pth

    source, model = _open(args)
    dtype = _dtype(args, torch.float16)
    write_pth(model, args.out, dtype, source.origin)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _export_onnx(args: argparse.Namespace) -> dict[str, Any]:
    from minimind.export import onnx, tensorrt
    from minimind.export.target import new_folder
    from minimind.weights.onnx_layout import GRAPH

    builder = tensorrt.find_builder() if args.format == "tensorrt" else None
    onnx.check_packages(run=not args.no_check or bool(args.variants or args.eval_data_path))
    source, model = _open(args)
    with new_folder(args.out, args.force) as folder:
        report = _write_graphs(args, source, model, folder)
        if builder is not None:
            profiles = tensorrt.optimisation_profiles(
                model.config, not args.no_kv_cache, args.max_batch_size, args.max_length
            )
            tensorrt.build_engine(builder, folder / GRAPH, folder / tensorrt.FILE, profiles)
    return report


def _export_web(args: argparse.Namespace) -> dict[str, Any]:
    from minimind.export import onnx, web
    from minimind.export.target import new_folder
    from minimind.weights.onnx_layout import GRAPH

    onnx.check_packages(run=True)
    source, model = _open(args)
    args.variants = args.variants or ["q8"]
    with new_folder(args.out, args.force) as folder:
        # What may fail for want of a network comes before the work.
        web.write_runtime(folder / web.RUNTIME, args.runtime)
        (folder / web.MODEL).mkdir()
        report = _write_graphs(args, source, model, folder / web.MODEL)
        (folder / web.MODEL / GRAPH).unlink()
        web.write_page(folder, args.variants[0], source.context)
    return report


def _write_graphs(
    args: argparse.Namespace, source: Any, model: Any, folder: Path
) -> dict[str, Any]:
    """Fill ``folder`` as Optimum does, with the graphs that are asked for."""
    import torch

    from minimind.export import onnx, quantised
    from minimind.export.about import describe
    from minimind.export.genai import write_genai_config
    from minimind.export.hf import write_companions, write_qwen3_config
    from minimind.weights.onnx_layout import GRAPH

    about = describe(source, args.license, args.language)
    kv_cache = not args.no_kv_cache
    graph = folder / GRAPH
    onnx.write_onnx(model, graph, kv_cache, source.origin)
    difference = None
    if not args.no_check:
        difference = onnx.largest_onnx_difference(model, graph, kv_cache)
        if not difference <= LARGEST_ONNX_DIFFERENCE:
            raise MiniMindError(
                f"the graph in onnxruntime differs from the model by {difference:.3g} in its "
                f"logits, more than {LARGEST_ONNX_DIFFERENCE:g}"
            )
    graphs = [graph, *(quantised.write_variant(graph, v) for v in dict.fromkeys(args.variants))]
    if args.eval_data_path:
        about = quantised.with_losses(about, graphs, source, args.eval_data_path)
    write_qwen3_config(model.config, folder, torch.float32, quantised.stored_apart(graphs))
    if kv_cache:
        write_genai_config(model.config, folder)
    write_companions(source, model, folder, args.format, about)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": "float32",
        "kv_cache": kv_cache,
        "largest_logit_difference": difference,
        "held_out_losses": about.losses if args.eval_data_path else {},
    }


def _export_gguf(args: argparse.Namespace) -> dict[str, Any]:
    from minimind.export.gguf import check_gguf, largest_gguf_difference, write_gguf
    from minimind.export.target import new_file

    source, model = _open(args)
    stored = str(source.dtype).removeprefix("torch.")
    dtype = stored if args.dtype == "auto" else args.dtype
    check_gguf(model.config, dtype)
    difference: float | None = None

    def write(file: Path) -> None:
        nonlocal difference
        write_gguf(source, model, file, dtype)
        if not args.no_check:
            difference = largest_gguf_difference(model, file, dtype)

    new_file(args.out, write)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": dtype,
        "largest_weight_difference": difference,
    }


def _print(report: dict[str, Any]) -> None:
    print(f"{report['out']}: {report['parameters']:,} parameters in {report['dtype']}")
    for name, size in report["files"].items():
        print(f"  {name:<32} {size_text(size)}")
    if report.get("largest_logit_difference") is not None:
        print(f"checked: logits differ by at most {report['largest_logit_difference']:.2g}")
    for name, loss in report.get("held_out_losses", {}).items():
        print(f"held-out loss of {name}: {loss:.4f}")
    if report.get("largest_weight_difference") is not None:
        print(f"checked: weights differ by at most {report['largest_weight_difference']:.2g}")
