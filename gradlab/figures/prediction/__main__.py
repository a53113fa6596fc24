"""`python -m gradlab.figures.prediction STORE`: do what is left of the study; Ctrl-C is safe."""

import sys
from pathlib import Path

from gradlab.figures.prediction.study import Study, default_store, perform

if __name__ == "__main__":
    try:
        perform(Study(), Path(*sys.argv[1:]) if sys.argv[1:] else default_store(), progress=True)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
    except (ValueError, OSError) as fault:
        sys.exit(str(fault))
