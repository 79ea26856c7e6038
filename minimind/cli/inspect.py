"""``minimind inspect``: what a file or folder is, in ten lines, and whether it verifies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.errors import EXIT_DONE, EXIT_USER_ERROR, MiniMindError, WeightsError
from minimind.inspection.exported import add_gguf_facts, add_onnx_facts
from minimind.inspection.finding import Finding, add_model_facts, written
from minimind.report.read import named_checkpoints
from minimind.report.tidy import read_flags
from minimind.rundir.events import Kind
from minimind.rundir.layout import OutputPaths, RunPaths, find_output
from minimind.system.command_line import Parser
from minimind.system.terminal import one_line, print_json, size_text
from minimind.weights.onnx_layout import graph_of

EXAMPLES = """\
Examples:
  minimind inspect checkpoints/pretrain_512.pt
  minimind inspect out runs/my-run exported/hf exported/model.gguf --json
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind inspect",
        description="Say what checkpoints, weights, GGUF and ONNX files, token stores,\n"
        "tokenizers, model folders and run folders are, and whether they verify.\n"
        "Exit code 2: something does not.",
        epilog=EXAMPLES,
    )
    parser.add_argument("path", nargs="+", type=Path, metavar="PATH", help="file or folder")
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns 2 when something that was inspected does not verify."""
    args = build_parser().parse_args(list(argv))
    findings = [inspect(path) for path in args.path]
    if args.json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print("\n\n".join("\n".join(finding.lines()) for finding in findings))
    return EXIT_USER_ERROR if any(finding.problems for finding in findings) else EXIT_DONE


def inspect(path: Path) -> Finding:
    """Find out what ``path`` is, and check all of it that can be checked."""
    finding = Finding(str(path), "unreadable")
    try:
        finding.kind, look = _recognise(path)
        look(path, finding)
    except (MiniMindError, OSError) as error:
        finding.problems.append(one_line(error))
    return finding


def _recognise(path: Path) -> tuple[str, Callable[[Path, Finding], None]]:
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        run, own = RunPaths(path), OutputPaths(path)
        launched = run.spec_file.exists() or run.events_file.exists()
        if launched or OutputPaths(run.output).metrics.is_file():
            return "run folder", _run_folder
        if own.metrics.exists():
            return "output folder of a run", _run_folder
        if "meta.json" in names:
            return "token store", _store
        if graph_of(path) and not list(path.glob("*.safetensors")):
            return "ONNX model folder", _onnx_folder
        if "config.json" in names:
            return "Hugging Face model folder", _model_folder
        if names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
            return "tokenizer", _tokenizer
        return "folder", _unknown
    if not path.exists():
        return "nothing", _unknown
    if path.suffix == ".pt":
        return "checkpoint", _checkpoint
    if path.suffix == ".pth":
        return "weights", _weights
    if path.suffix == ".gguf":
        return "GGUF model", add_gguf_facts
    if path.suffix == ".onnx":
        return "ONNX graph", add_onnx_facts
    return "file", _unknown


def _unknown(path: Path, finding: Finding) -> None:
    if finding.kind == "nothing":
        finding.problems.append("no such file or folder")
    else:
        finding.problems.append(
            "not a checkpoint (.pt), weights (.pth), GGUF or ONNX file, token store, tokenizer, "
            "model or run folder"
        )


def _checkpoint(path: Path, finding: Finding) -> None:
    from minimind.checkpoint.state import TrainState
    from minimind.checkpoint.store import load_checkpoint
    from minimind.weights.state_dict import stored_weights

    found = load_checkpoint(path)
    finding.checked.append("checksums of all records")
    state, content = TrainState.from_dict(found, path), stored_weights(found, path)
    progress, flags = state.progress, state.config
    finding.facts["written"] = written(path)
    finding.facts["place"] = (
        f"epoch {progress.epoch + 1} of {flags.get('epochs')}, micro-step {progress.step:,}"
    )
    finding.facts["global_step"] = progress.global_step
    finding.facts["tokens"] = progress.tokens
    add_model_facts(content.state, content.settings, finding)
    finding.facts["optimiser"] = f"{flags.get('optimizer')}, rate {flags.get('learning_rate')}"
    finding.facts["rows"] = (
        f"{flags.get('max_seq_len')} tokens, {state.rows_per_update} an update on "
        f"{state.world_size} ranks"
    )
    finding.facts["data"] = " ".join(map(str, flags.get("data_path", [])))
    finding.facts["tracking_id"] = state.wandb_id or "none"


def _weights(path: Path, finding: Finding) -> None:
    from minimind.weights.state_dict import read_state_dict
    from minimind.weights.torch_file import verify_file

    verify_file(path)
    finding.checked.append("checksums of all records")
    finding.facts["written"] = written(path)
    add_model_facts(read_state_dict(path), {}, finding)


def _model_folder(path: Path, finding: Finding) -> None:
    from minimind.weights.state_dict import read_folder_settings, read_state_dict

    config = _json(path / "config.json")
    finding.facts["written"] = written(path / "config.json")
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    finding.facts["architecture"] = ", ".join(map(str, names)) or "?"
    if list(path.glob("*.py")):
        finding.facts["code"] = "carries code of its own (trust_remote_code)"
    if not list(path.glob("*.safetensors")) and not list(path.glob("pytorch_model*.bin")):
        finding.problems.append("no *.safetensors and no pytorch_model.bin in it")
        return
    state = read_state_dict(path)
    finding.checked.append("the weight files' headers and sizes")
    add_model_facts(state, read_folder_settings(path), finding)
    if (path / "tokenizer.json").is_file():
        _tokenizer_facts(path, finding)


def _onnx_folder(path: Path, finding: Finding) -> None:
    graph = graph_of(path)
    assert graph is not None, "what recognised the folder found it"
    add_onnx_facts(graph, finding)
    if (path / "tokenizer.json").is_file():
        _tokenizer_facts(path, finding)


def _store(path: Path, finding: Finding) -> None:
    import numpy as np

    from minimind.data.token_store import DamagedStoreError, TokenStore

    try:
        store = TokenStore.open(path)
    except DamagedStoreError as error:
        finding.problems.append(str(error))
        return
    lengths = store.offsets[1:] - store.offsets[:-1]
    finding.facts["written"] = written(path / "meta.json")
    finding.facts["documents"] = store.n_docs
    finding.facts["tokens"] = store.n_tokens
    finding.facts["text"] = (
        f"{size_text(store.n_bytes)}, {store.n_bytes / store.n_tokens:.2f} a token"
    )
    finding.facts["lengths"] = (
        f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.0f} tokens"
    )
    finding.facts["left_out"] = f"{store.n_rejected} rows"
    finding.facts["vocabulary"] = store.vocab_size
    sources = [str(source.get("path")) for source in store.sources()]
    finding.facts["made_from"] = ", ".join(sources[:3]) + (" …" if len(sources) > 3 else "")
    if store.hash_of_content() != store.content_hash:
        finding.problems.append(
            "the tokens do not have the checksum in meta.json: remove the store"
        )
    elif store.n_tokens and int(np.asarray(store.tokens).max()) >= store.vocab_size:
        finding.problems.append("a token is outside of the vocabulary")
    finding.checked += ["sizes", "SHA-256 of the tokens"]


def _tokenizer(path: Path, finding: Finding) -> None:
    _tokenizer_facts(path, finding)


def _tokenizer_facts(path: Path, finding: Finding) -> None:
    from minimind.data.tokenizer import load_tokenizer, tokenizer_fingerprint

    tokenizer = load_tokenizer(str(path))
    special = [f"{name} {getattr(tokenizer, f'{name}_token_id')}" for name in ("bos", "eos", "pad")]
    finding.facts["tokenizer"] = f"{len(tokenizer)} entries, {', '.join(special)}"
    finding.facts["fingerprint"] = tokenizer_fingerprint(str(path))[:16]
    sample = "The harbour was quiet. 清晨的港口很安静。\n\tx = 1 🙂"
    ids = tokenizer(sample, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(ids, clean_up_tokenization_spaces=False) == sample:
        finding.checked.append("text survives encoding")
    else:
        finding.problems.append("a text does not survive encoding and decoding")


def _run_folder(path: Path, finding: Finding) -> None:
    from minimind.rundir.metrics import read_metrics

    run = RunPaths(path)
    out = find_output(path) or OutputPaths(run.output)
    records = read_metrics(out.metrics)
    points = [record for record in records if "loss" in record]
    held_out = [record for record in records if "eval_loss" in record]
    if points:
        last = points[-1]
        finding.facts["place"] = (
            f"epoch {last.get('epoch', 0) + 1}, optimiser step {last.get('global_step', 0):,} of "
            f"{last.get('total_steps', 0):,}"
        )
        finding.facts["loss"] = f"{last['loss']:.4f}" + (
            f", held out {held_out[-1]['eval_loss']:.4f}" if held_out else ""
        )
        finding.facts["tokens"] = last.get("tokens", 0)
        finding.facts["last_point"] = _age(last.get("time", 0.0))
    else:
        finding.problems.append(f"no logged point in {out.metrics}")
    resumes = sum(record.get("event") == Kind.RESUMED for record in records)
    finding.facts["resumes"] = resumes
    for marker, word in ((run.done_marker, "done"), (run.stopped_marker, "stopped")):
        if marker.is_file():
            finding.facts["ended"] = f"{word}: {_json(marker).get('reason', '')}"
    named = named_checkpoints(read_flags(out.config))
    for folder in dict.fromkeys((path, run.output, out.folder, run.checkpoints, *named)):
        for file in sorted((*folder.glob("*.pt"), *folder.glob("*.pth"))):
            _member(file, path, finding)


def _member(file: Path, root: Path, finding: Finding) -> None:
    """A weight file or checkpoint in a run folder."""
    inner = inspect(file)
    name = str(file.relative_to(root) if file.is_relative_to(root) else file)
    finding.files[name] = f"{inner.kind}, {size_text(file.stat().st_size)}"
    if "place" in inner.facts:
        finding.files[name] += f", optimiser step {inner.facts['global_step']:,}"
    finding.problems += [f"{name}: {problem}" for problem in inner.problems]
    if not inner.problems:
        finding.checked.append(name)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _age(moment: float) -> str:
    minutes = max(0.0, time.time() - moment) / 60
    if minutes < 120:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 2880 else f"{minutes / 1440:.0f} days ago"
