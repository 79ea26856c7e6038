#!/usr/bin/env bash
# transformers 5.23.0: save_pretrained(safe_serialization=False) writes safetensors all the same.
#
# Guessed: safe_serialization=False writes pytorch_model.bin, as it did in transformers 4, or is refused.
# True: transformers 5 takes the argument without a word and writes model.safetensors; 4.57 writes pytorch_model.bin. A
#   converter that asks for it, such as upstream MiniMind's, gives either folder, by the transformers it runs with. That
#   is why ours reads both.
#
# Needs Python 3.10 or newer and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > save.py <<'PYTHON'
import os
import sys

import transformers

size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
config = transformers.Qwen3Config(num_attention_heads=2, num_key_value_heads=2, head_dim=8, **size)
transformers.Qwen3ForCausalLM(config).save_pretrained("saved", safe_serialization=False)
files = sorted(name for name in os.listdir("saved") if name.endswith((".bin", ".safetensors")))
print("transformers", transformers.__version__, *files)
PYTHON
for version in 4.57.6 5.23.0; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/python" -m pip install --quiet --disable-pip-version-check \
        "transformers==$version" torch==2.13.0 numpy
    rm -rf saved
    "venv-$version/bin/python" save.py 2> /dev/null | tail -1 | tee -a said
done
for line in 'transformers 4.57.6 pytorch_model.bin' 'transformers 5.23.0 model.safetensors'; do
    grep -q -x -F "$line" said || { echo "changed"; exit 1; }
done
echo "as it was: the argument is taken in silence, and does nothing in transformers 5"

# Seen on 2026-11-30:
# transformers 4.57.6 pytorch_model.bin
# transformers 5.23.0 model.safetensors
# as it was: the argument is taken in silence, and does nothing in transformers 5
