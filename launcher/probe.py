"""The probe under the name that jobs start it by: ``python -m launcher.probe``."""

import sys

from launcher.inspect.probe import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
