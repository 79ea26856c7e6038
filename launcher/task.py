"""A rank's entry under the name that pickles, images and scripts know: ``launcher.rank.task``."""

import sys

from launcher.rank.task import RankTask, main

__all__ = ["RankTask", "main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
