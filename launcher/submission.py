"""The local executor under the name that a run's own snapshot of the code has: ``-m`` starts it."""

import sys

from launcher.submit.local import local_main

if __name__ == "__main__":
    local_main(sys.argv[1], sys.argv[2:])
