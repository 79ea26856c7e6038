"""``python -m launcher.supervise RUN WORDS…``, as batch scripts call it."""

import sys

from launcher.supervise.slurm import main

sys.exit(main(sys.argv[1:]))
