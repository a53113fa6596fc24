"""`python -m gradlab`: the same as the command `gradlab`."""

import sys

from gradlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
