from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SECRET = "s3cret-value"

PROGRAM = """
import json, logging, os, sys
from minimind.system import redact
from minimind.system.jsonl import to_json

logging.basicConfig(filename=sys.argv[1], format="%(levelname)s %(message)s")
log = logging.getLogger("another.package")
redact.install()
redact.install()
value, longer = os.environ["TOKEN"], os.environ["LONGER"]
print("value", value, "longer", longer, "pin", os.environ["PIN"], flush=True)
sys.stdout.writelines([value, "\\n"])
log.warning("with %s and %d%%", value, 5)
log.warning("cannot be %d", "put together")
try:
    raise ValueError(f"refused: {value}")
except ValueError:
    log.exception("failed")
print(to_json({"error": f"no {value}", "list": [longer], "path": {"a": value}}))
print(json.dumps([sys.stdout.isatty(), sys.stdout.fileno(), sys.stdout.encoding.lower()]))
raise RuntimeError(value)
"""


def run(tmp_path: Path, **environment: str) -> tuple[str, str, str]:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)],
        env={**os.environ, "TOKEN": SECRET, "LONGER": f"{SECRET}-2", "PIN": "12", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    return done.stdout, done.stderr, log.read_text()


def test_values_of_secrets_are_in_no_output_log_or_record(tmp_path: Path) -> None:
    out, err, log = run(tmp_path, MINIMIND_SECRETS="TOKEN,LONGER,PIN,ABSENT")
    assert SECRET not in out + err + log
    first, second, record, stream = out.splitlines()
    assert first == "value *** longer *** pin 12"
    assert second == "***"
    assert json.loads(record) == {"error": "no ***", "list": ["***"], "path": {"a": "***"}}
    assert json.loads(stream) == [False, 1, "utf-8"]
    assert err.endswith("RuntimeError: ***\n")
    assert "WARNING with *** and 5%" in log
    assert "ERROR failed\nTraceback" in log
    assert "ValueError: refused: ***" in log
    assert "put together" in err, "logging's own complaint about a record"


def test_without_a_secret_all_stays_as_it_is(tmp_path: Path) -> None:
    out, err, log = run(tmp_path)
    assert out.startswith(f"value {SECRET} longer {SECRET}-2 pin 12\n")
    assert err.endswith(f"RuntimeError: {SECRET}\n")
    assert f"refused: {SECRET}" in log


def test_the_tokens_of_known_services_need_no_naming(tmp_path: Path) -> None:
    out, err, log = run(tmp_path, SWANLAB_API_KEY=SECRET, HF_TOKEN=f"{SECRET}-2")
    assert SECRET not in out + err + log
