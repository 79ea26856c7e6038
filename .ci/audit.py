"""Asks whether a pinned dependency has a known vulnerability: exit code 1 if one has.

Without an advisory database in reach nothing is known, and that is said, loudly, with exit code 0.
A database that knows a package not at all is no answer: it is counted, and shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SERVICES = ("osv", "pypi")
TIMEOUT_SECONDS = "15"


def ask(service: str) -> dict[str, Any] | None:
    """pip-audit's report on requirements.lock; None when the service does not answer."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock"]
    command += ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command += ["--vulnerability-service", service, "--timeout", TIMEOUT_SECONDS]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No module named" in done.stderr:
        raise SystemExit("audit: pip-audit is not installed; run `make setup`")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def verdict(ask: Callable[[str], dict[str, Any] | None]) -> tuple[int, list[str]]:
    """Exit code and what to say, by the first service that knows anything."""
    for service in SERVICES:
        packages = (ask(service) or {}).get("dependencies", [])
        audited = [package for package in packages if "skip_reason" not in package]
        if not audited:
            continue
        bad = [package for package in audited if package.get("vulns")]
        lines = [_line(package) for package in bad]
        unknown = len(packages) - len(audited)
        lines.append(
            f"audit: {len(bad)} of {len(audited)} packages have known vulnerabilities ({service}); "
            f"{unknown} could not be looked up"
        )
        return int(bool(bad)), lines
    return 0, ["audit: NOT DONE: no advisory database answers from here; nothing is known"]


def _line(package: dict[str, Any]) -> str:
    known = [
        f"{v['id']} (mended in {', '.join(v['fix_versions']) or '?'})" for v in package["vulns"]
    ]
    return f"{package['name']} {package['version']}: {', '.join(known)}"


def main() -> int:
    code, lines = verdict(ask)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
