#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer imports torch to open a tokenizer that needs none.
#
# Guessed: a tokenizer folder with tokenizer.json is read by the tokenizers library, so a program that only
#   counts tokens starts without torch, by whichever class it opens the folder.
# True: AutoTokenizer's module imports torch where it is installed, seconds on a slow machine;
#   PreTrainedTokenizerFast, another name of the class that it returns, opens the same folder without. That is why the
#   commands of ours that only tokenise open a plain folder by that class.
#
# Needs Python 3.10 or newer and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    transformers==5.23.0 tokenizers==0.23.3 torch==2.13.0 numpy
venv/bin/python - <<'PYTHON'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained("plain")
PYTHON
for class in AutoTokenizer PreTrainedTokenizerFast; do
    venv/bin/python -c "
import sys
from transformers import $class
found = $class.from_pretrained('plain')
print('$class:', type(found).__name__, found('a')['input_ids'], 'torch' in sys.modules)" | tee "said.$class"
done
if ! grep -q True said.AutoTokenizer || ! grep -q False said.PreTrainedTokenizerFast; then
    echo "changed"
    exit 1
fi
echo "as it was: AutoTokenizer imports torch, the class that it returns does not"

# Seen on 2026-11-30:
# AutoTokenizer: TokenizersBackend [0] True
# PreTrainedTokenizerFast: TokenizersBackend [0] False
# as it was: AutoTokenizer imports torch, the class that it returns does not
