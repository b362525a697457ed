"""`python -m ringwatch` is `ringwatch`.

Python puts the working directory first on the path of a module that is run so: a `data.py` there would stand in for the
package `data`, and an `http.py` for the standard library's. It is taken off before anything else is imported.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:] = [ROOT, *(path for path in sys.path if os.path.abspath(path) not in (os.getcwd(), ROOT))]

from serve.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
