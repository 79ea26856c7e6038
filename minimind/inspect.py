"""``minimind inspect``: what a file or folder is, in ten lines, and whether it verifies."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.command import Parser, add_json_flag, count_text, print_json, size_text
from minimind.errors import EXIT_DONE, EXIT_USER_ERROR, MiniMindError, WeightsError
from minimind.terminal import one_line

EXAMPLES = """\
Examples:
  minimind inspect checkpoints/pretrain_512.pt
  minimind inspect out runs/my-run exported/hf --json
"""


@dataclass
class Finding:
    """What something is. ``problems`` is empty when everything that could be checked is right."""

    path: str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "verified": not self.problems}

    def lines(self) -> list[str]:
        """For people."""
        verdict = [f"  {'PROBLEM':<12} {problem}" for problem in self.problems]
        if not self.problems:
            verdict = [f"  {'verified':<12} {', '.join(self.checked)}"]
        facts = [f"  {name.replace('_', ' '):<12} {_text(v)}" for name, v in self.facts.items()]
        files = [f"  {name}: {what}" for name, what in self.files.items()]
        return [f"{self.path}: {self.kind}", *facts, *files, *verdict]


def main(argv: Sequence[str]) -> int:
    """Returns 2 when something that was inspected does not verify."""
    parser = Parser(
        prog="minimind inspect",
        description="Say what checkpoints, weights, token stores, tokenizers, model folders and\n"
        "run folders are, and whether they verify. Exit code 2: something does not.",
        epilog=EXAMPLES,
    )
    parser.add_argument("path", nargs="+", type=Path, metavar="PATH", help="file or folder")
    add_json_flag(parser)
    args = parser.parse_args(list(argv))
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
        if {"spec.json", "events.jsonl"} & names or (path / "out" / "metrics.jsonl").is_file():
            return "run folder", _run_folder
        if "metrics.jsonl" in names:
            return "output folder of a run", _run_folder
        if "meta.json" in names:
            return "token store", _store
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
    return "file", _unknown


def _unknown(path: Path, finding: Finding) -> None:
    if finding.kind == "nothing":
        finding.problems.append("no such file or folder")
    else:
        finding.problems.append(
            "not a checkpoint (.pt), weights (.pth), token store, tokenizer, model or run folder"
        )


def _checkpoint(path: Path, finding: Finding) -> None:
    from minimind.training.checkpoint import load_checkpoint
    from minimind.training.resume import check_state
    from minimind.weights import read_checkpoint

    state = load_checkpoint(path)
    finding.checked.append("checksums of all records")
    check_state(state, path)
    content = read_checkpoint(path)
    if content is None:
        raise WeightsError(f"{path} has no model configuration: an older program wrote it")
    flags = content.flags
    finding.facts["written"] = _written(path)
    finding.facts["place"] = (
        f"epoch {state['epoch'] + 1} of {flags.get('epochs')}, micro-step {state['step']:,}"
    )
    finding.facts["global_step"] = int(state["global_step"])
    finding.facts["tokens"] = int(state.get("tokens", 0))
    _model_facts(content.state, content.settings, finding)
    finding.facts["optimiser"] = f"{flags.get('optimizer')}, rate {flags.get('learning_rate')}"
    finding.facts["rows"] = (
        f"{flags.get('max_seq_len')} tokens, {state.get('rows_per_update')} an update on "
        f"{state.get('world_size')} ranks"
    )
    finding.facts["data"] = " ".join(map(str, flags.get("data_path", [])))
    finding.facts["tracking_id"] = state.get("wandb_id") or "none"


def _weights(path: Path, finding: Finding) -> None:
    from minimind.torch_file import verify_file
    from minimind.weights import read_state_dict

    verify_file(path)
    finding.checked.append("checksums of all records")
    finding.facts["written"] = _written(path)
    _model_facts(read_state_dict(path), {}, finding)


def _model_folder(path: Path, finding: Finding) -> None:
    from minimind.weights import read_folder_settings, read_state_dict

    config = _json(path / "config.json")
    finding.facts["written"] = _written(path / "config.json")
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    finding.facts["architecture"] = ", ".join(map(str, names)) or "?"
    if list(path.glob("*.py")):
        finding.facts["code"] = "carries code of its own (trust_remote_code)"
    if not list(path.glob("*.safetensors")):
        finding.problems.append("no *.safetensors file in it")
        return
    state = read_state_dict(path)
    finding.checked.append("safetensors headers and sizes")
    _model_facts(state, read_folder_settings(path), finding)
    if (path / "tokenizer.json").is_file():
        _tokenizer_facts(path, finding)


def _model_facts(state: Any, settings: dict[str, Any], finding: Finding) -> None:
    """Shape and size of a model, and whether its tensors are all there and finite."""
    import torch

    from minimind.model import MiniMindForCausalLM
    from minimind.weights import EMBEDDING, HEAD, infer_config

    config = infer_config(state, **settings)
    with torch.device("meta"):
        expected = MiniMindForCausalLM(config).state_dict()
    tied = config.tie_word_embeddings
    parameters = sum(t.numel() for n, t in expected.items() if not (tied and n == HEAD))
    finding.facts["parameters"] = f"{count_text(parameters)} in {_short(state[EMBEDDING].dtype)}"
    experts = ""
    if config.use_moe:
        known = f", {config.num_experts_per_tok} a token" if settings else ""
        experts = f", {config.num_experts} experts{known}"
    finding.facts["shape"] = (
        f"{config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{config.num_attention_heads}/{config.num_key_value_heads} heads{experts}, "
        f"vocabulary {config.vocab_size}, {'tied' if tied else 'untied'}"
    )
    missing = [n for n in expected if n not in state and not (tied and n == HEAD)]
    extra = [n for n in state if n not in expected]
    wrong = [n for n in expected if n in state and state[n].shape != expected[n].shape]
    for word, names in (("missing", missing), ("unexpected", extra), ("misshapen", wrong)):
        if names:
            finding.problems.append(f"{len(names)} tensors {word}: {', '.join(names[:3])}")
    bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        finding.problems.append(f"{len(bad)} tensors hold NaN or infinity: {', '.join(bad[:3])}")
    finding.checked += ["every tensor there and finite"]


def _store(path: Path, finding: Finding) -> None:
    from minimind.data.store import DamagedStoreError, TokenStore

    try:
        store = TokenStore.open(path)
    except DamagedStoreError as error:
        finding.problems.append(str(error))
        return
    meta = _json(path / "meta.json")
    lengths = store.offsets[1:] - store.offsets[:-1]
    finding.facts["written"] = _written(path / "meta.json")
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
    listed = meta.get("sources")
    sources = [str(s.get("path")) for s in listed if isinstance(s, dict)] if listed else []
    finding.facts["made_from"] = ", ".join(sources[:3]) + (" …" if len(sources) > 3 else "")
    if _content_hash(store.tokens, lengths) != store.content_hash:
        finding.problems.append(
            "the tokens do not have the checksum in meta.json: remove the store"
        )
    elif store.n_tokens and int(store.tokens.max()) >= store.vocab_size:
        finding.problems.append("a token is outside of the vocabulary")
    finding.checked += ["sizes", "SHA-256 of the tokens"]


def _content_hash(tokens: Any, lengths: Any) -> str:
    """What ``TokenStore.content_hash`` is, from the arrays; in bounded memory."""
    inner = hashlib.sha256()
    step = 1 << 22
    for start in range(0, len(tokens), step):
        inner.update(tokens[start : start + step].tobytes())
    outer = hashlib.sha256(inner.digest())
    outer.update(lengths.tobytes())
    return outer.hexdigest()


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
    from minimind.training.metrics import read_metrics

    out = path if (path / "metrics.jsonl").is_file() else path / "out"
    records = read_metrics(out / "metrics.jsonl")
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
        finding.problems.append(f"no logged point in {out / 'metrics.jsonl'}")
    resumes = sum(record.get("event") == "resumed" for record in records)
    finding.facts["resumes"] = resumes
    for name, word in (("DONE", "done"), ("STOPPED", "stopped")):
        if (path / name).is_file():
            finding.facts["ended"] = f"{word}: {_json(path / name).get('reason', '')}"
    for folder in (path, path / "out", path / "checkpoints"):
        for file in sorted((*folder.glob("*.pt"), *folder.glob("*.pth"))):
            _member(file, path, finding)


def _member(file: Path, root: Path, finding: Finding) -> None:
    """A weight file or checkpoint in a run folder."""
    inner = inspect(file)
    name = str(file.relative_to(root))
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


def _written(path: Path) -> str:
    modified = path.stat().st_mtime
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(modified))
    return f"{stamp}, {size_text(path.stat().st_size)}"


def _age(moment: float) -> str:
    minutes = max(0.0, time.time() - moment) / 60
    if minutes < 120:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 2880 else f"{minutes / 1440:.0f} days ago"


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
