"""The flags: frozen names and defaults, ranges, TOML."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.config import RECIPES, TrainConfig, parse_args, read_config_file, write_config_file
from minimind.errors import ConfigError

FROZEN = Path(__file__).parent / "frozen_cli.txt"


def described() -> str:
    defaults = TrainConfig().to_dict()
    return "".join(f"--{name} {value!r}\n" for name, value in defaults.items())


def test_flags_and_defaults_are_frozen() -> None:
    """A change here breaks users' commands; change the file only on purpose."""
    assert described() == FROZEN.read_text()


def test_flags_of_the_design_document_parse() -> None:
    config = parse_args(
        "--epochs 3 --batch_size 32 --learning_rate 2e-4 --hidden_size 512 --num_hidden_layers 8 "
        "--max_seq_len 512 --use_moe 0 --data_path ../dataset/pretrain_hq.jsonl --use_wandb".split()
    )
    assert (config.epochs, config.batch_size, config.learning_rate) == (3, 32, 2e-4)
    assert config.data_path == ["../dataset/pretrain_hq.jsonl"]
    assert config.use_wandb is True
    assert config.weight_file == Path("out/pretrain_512.pth")
    assert config.checkpoint_file == Path("checkpoints/pretrain_512.pt")


def test_moe_files_carry_a_suffix() -> None:
    config = TrainConfig(use_moe=1, hidden_size=256, save_weight="x")
    assert config.weight_file.name == "x_256_moe.pth"


def test_dashes_work_where_underscores_do() -> None:
    assert parse_args(["--batch-size", "4", "--from-resume=auto"]) == TrainConfig(
        batch_size=4, from_resume="auto"
    )


def test_a_value_may_begin_with_a_dash_or_hold_dashes() -> None:
    config = parse_args(["--save_dir=my-out-dir", "--wandb_project", "a-b", "--max_bad_rows=-1"])
    assert (config.save_dir, config.wandb_project) == ("my-out-dir", "a-b")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--batch_size", "0"], "--batch_size must be greater than 0, or auto, but is 0"),
        (["--batch_size", "x"], "--batch_size must be a whole number"),
        (["--epochs", "1.5"], "--epochs must be a whole number"),
        (["--learning_rate", "nan"], "--learning_rate must be a finite number"),
        (["--learning_rate", "-1"], "--learning_rate must be greater than 0"),
        (["--grad_clip", "-0.1"], "--grad_clip must be 0 or more"),
        (["--warmup_ratio", "1"], "--warmup_ratio must be at least 0 and below 1"),
        (
            ["--attention", "flex_attention", "--hidden_size", "64"],
            "--attention flex_attention needs heads of 16 or more",
        ),
        (["--dtype", "int8"], "--dtype must be one of bfloat16, float16, float32"),
        (["--use_moe", "2"], "--use_moe must be one of 0, 1"),
        (["--device", "cpu:0"], "--device must be a device as torch names it, such as cpu, cuda"),
        (["--device", "GPU 0"], "--device must be a device as torch names it, such as cpu, cuda"),
        (["--device", "cpu", "--dtype", "float16"], "use bfloat16 or float32 on a CPU"),
        (["--save_weight", "a/b"], "--save_weight must be a plain file name"),
        (["--hidden_size", "100"], "must be a multiple of --num_attention_heads 8"),
        (["--hidden_size", "24"], "must be even"),
        (
            [
                "--use_moe",
                "1",
                "--hidden_size",
                "36",
                "--num_attention_heads",
                "2",
                "--num_key_value_heads",
                "1",
            ],
            "must be a multiple of 8 with --use_moe 1",
        ),
        (["--num_key_value_heads", "3"], "must be a multiple of --num_key_value_heads 3"),
        (["--num_experts_per_tok", "5"], "--num_experts_per_tok 5 exceeds --num_experts 4"),
        (["--seed", "-1"], "--seed must be between 0"),
        (["--max_seq_len", "4"], "--max_seq_len must be from 8 to 1048576"),
        (["--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["--batch", "3"], "unrecognized arguments"),
        (["--batch_size"], "expected one argument"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_bad_flags_say_what_to_change(argv: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_args(argv)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_number_flag_refuses_what_is_not_a_number() -> None:
    for name, value in TrainConfig().to_dict().items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with pytest.raises(ConfigError, match=name):
                parse_args([f"--{name}", "many"])


@pytest.mark.parametrize(
    ("argv", "rate"),
    [
        ([], 5e-4),
        (["--optimizer", "muon"], 5e-3),
        (["--optimizer", "muon", "--learning_rate", "5e-4"], 5e-4),
        (["--learning_rate", "1e-3"], 1e-3),
    ],
)
def test_each_optimizer_has_its_learning_rate(argv: list[str], rate: float) -> None:
    assert parse_args(argv).learning_rate == rate


def test_a_recipe_sets_the_flags_that_nothing_else_sets(tmp_path: Path) -> None:
    """The command line wins over the file, both over the recipe, and that over the defaults."""
    file = tmp_path / "run.toml"
    file.write_text('recipe = "fast"\nwarmup_ratio = 0.2\n')
    fast = parse_args(["--recipe", "fast"])
    assert (fast.optimizer, fast.learning_rate, fast.warmup_ratio) == ("muon", 5e-3, 0.05)
    assert fast == TrainConfig(recipe="fast")
    assert not fast.beside_recipe
    by_file = parse_args(["--config", str(file)])
    assert (by_file.optimizer, by_file.warmup_ratio) == ("muon", 0.2)
    by_word = parse_args(["--config", str(file), "--warmup_ratio", "0.3", "--optimizer", "adamw"])
    assert (by_word.optimizer, by_word.warmup_ratio) == ("adamw", 0.3)
    assert by_word.learning_rate == 5e-4
    assert by_word.beside_recipe == {
        "optimizer": ("adamw", "muon"),
        "warmup_ratio": (0.3, 0.05),
        "learning_rate": (5e-4, 5e-3),
    }
    # What a run leaves behind names every flag, so the file repeats it under any recipe.
    write_config_file(fast, file)
    again = parse_args(["--config", str(file), "--recipe", "minimind"])
    assert (again.optimizer, again.warmup_ratio) == ("muon", 0.05)


def test_all_recipes_set_the_same_flags() -> None:
    """And only such as wait for it, or a recipe's value would be lost."""
    waiting = {f.name for f in dataclasses.fields(TrainConfig) if f.default is None}
    for flags in RECIPES.values():
        assert {*flags, "learning_rate"} == waiting
        TrainConfig(**flags)


class TestConfigFile:
    def test_command_line_wins(self, tmp_path: Path) -> None:
        file = tmp_path / "run.toml"
        file.write_text('epochs = 3\nbatch-size = 4\ndata_path = ["a", "b"]\nuse_wandb = true\n')
        config = parse_args(["--config", str(file), "--epochs", "5"])
        assert (config.epochs, config.batch_size) == (5, 4)
        assert config.data_path == ["a", "b"]
        assert config.use_wandb

    def test_unknown_key_names_the_near_one(self, tmp_path: Path) -> None:
        file = tmp_path / "run.toml"
        file.write_text("epoch = 3\n")
        with pytest.raises(ConfigError, match=r"unknown key 'epoch'; did you mean 'epochs'\?"):
            parse_args(["--config", str(file)])

    @pytest.mark.parametrize(
        "text", ["epochs = ", "epochs = '1x'", "use_wandb = 1", "[epochs]", "epochs = true"]
    )
    def test_bad_values_are_config_errors(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "run.toml"
        file.write_text(text + "\n")
        with pytest.raises(ConfigError):
            parse_args(["--config", str(file)])

    def test_missing_file(self) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            parse_args(["--config", "/nowhere/run.toml"])

    def test_written_config_repeats_the_run(self, tmp_path: Path) -> None:
        config = TrainConfig(epochs=7, data_path=["数据.jsonl", 'a"b'], learning_rate=3e-5)
        write_config_file(config, tmp_path / "config.toml")
        assert parse_args(["--config", str(tmp_path / "config.toml")]) == config

    def test_a_write_that_fails_in_the_middle_leaves_the_earlier_file(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        write_config_file(TrainConfig(epochs=7), file)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            # What is there of a torn file may well be valid TOML, with fewer flags in it.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            with pytest.raises(OSError, match="File too large"):
                write_config_file(TrainConfig(epochs=8), file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert parse_args(["--config", str(file)]).epochs == 7


def test_parsing_needs_no_torch() -> None:
    code = (
        "import sys; from minimind.config import parse_args; parse_args(['--epochs', '2']);"
        "import minimind.cli; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "minimind.train_pretrain"],
        ["minimind/train_pretrain.py"],
        ["-m", "minimind", "pretrain"],
    ],
)
def test_a_bad_flag_ends_every_entry_point_with_2_and_one_line(command: list[str]) -> None:
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, *command, "--epochs", "0"], capture_output=True, text=True, cwd=root
    )
    assert out.returncode == 2
    assert out.stderr == ("minimind pretrain: error: --epochs must be greater than 0, but is 0\n")


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("epochs = 3\n", encoding="utf-8-sig")
    assert parse_args(["--config", str(path)]).epochs == 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--learning_rat", "1"], "did you mean --learning_rate?"),
        (["--use_compile", "1"], "--use_compile is --compile on"),
        (["--out_dir=x"], "--out_dir is --save_dir here"),
        (["--dim", "512", "--n_layers", "8"], "--n_layers is --num_hidden_layers here"),
    ],
)
def test_flags_that_are_misspelt_or_upstreams_are_pointed_to_ours(
    words: list[str], hint: str
) -> None:
    with pytest.raises(ConfigError, match="unrecognized arguments") as caught:
        parse_args(words)
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_config_with_upstreams_flags_is_pointed_to_ours(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("use_compile = 1\n")
    with pytest.raises(ConfigError, match="unknown key 'use_compile': use --compile on"):
        read_config_file(file)


@pytest.mark.parametrize("name", ["My Project", "项目", "", "x" * 101, "ok\n", "a/b"])
def test_a_project_that_swanlab_refuses_is_refused_before_the_run(name: str) -> None:
    for words in (["--use_wandb"], ["--tracker", "tensorboard,swanlab"]):
        with pytest.raises(ConfigError, match=r"--wandb_project .*SwanLab takes 1 to 100"):
            parse_args([*words, "--wandb_project", name])
    parse_args(["--wandb_project", name])
    parse_args(["--wandb_project", name, "--tracker", "tensorboard"])


@pytest.mark.parametrize("name", ["a", "MiniMind-Pretrain", "x" * 100, "a.b_c+d-E9"])
def test_a_project_that_swanlab_takes(name: str) -> None:
    assert parse_args(["--use_wandb", "--wandb_project", name]).wandb_project == name


def test_a_name_that_no_file_could_have_is_refused_before_the_first_save() -> None:
    TrainConfig(save_weight="x" * 150)
    for name in ("x" * 151, "名" * 51):
        with pytest.raises(ConfigError, match="at most 150 bytes"):
            TrainConfig(save_weight=name)
