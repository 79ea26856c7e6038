#!/usr/bin/env bash
# swanlab 0.10.3: SWANLAB_PROJECT=name ends every use of SwanLab with an error.
#
# Guessed: SWANLAB_PROJECT names the project, as SWANLAB_MODE names the mode; a bad one is refused by the service.
# True: `project` is a group of settings, so the variable is parsed as JSON: a plain name is an error before anything
#   starts, offline too, and `{"name": "name"}` is right. A name with a blank or in Chinese is refused in every mode, so
#   a run that takes SwanLab's errors for a reason to go on untracked would never be tracked. That is why ours checks
#   names and settings before it starts.
#
# Needs Python 3.10 or newer and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check swanlab==0.10.3
cat > settings.py <<'PYTHON'
import swanlab

try:
    print("taken:", swanlab.Settings().project.name)
except Exception as error:
    print("refused:", type(error).__name__)
PYTHON
for project in lamps '{"name": "lamps"}' '{"name": "my lamps"}'; do
    echo "SWANLAB_PROJECT=$project $(SWANLAB_PROJECT=$project venv/bin/python settings.py | tail -1)" | tee -a said
done
for line in '=lamps refused' '"lamps"} taken: lamps' 'my lamps"} refused'; do
    grep -q -F -- "$line" said || { echo "changed"; exit 1; }
done
echo "as it was: a plain name is refused, JSON is taken, and a blank in the name is not"

# Seen on 2026-11-30:
# SWANLAB_PROJECT=lamps refused: SettingsError
# SWANLAB_PROJECT={"name": "lamps"} taken: lamps
# SWANLAB_PROJECT={"name": "my lamps"} refused: ValidationError
# as it was: a plain name is refused, JSON is taken, and a blank in the name is not
