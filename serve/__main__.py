"""`python -m serve` is `python -m ringwatch`, whatever lies in the working directory."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:] = [ROOT, *(path for path in sys.path if os.path.abspath(path) not in (os.getcwd(), ROOT))]

from serve.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
