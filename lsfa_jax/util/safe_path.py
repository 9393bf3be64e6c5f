"""The module search path without the current folder, where a file csv.py of the user would be executed."""

import os
import sys


def leave_current_folder() -> None:
    """Removes the current folder from the search path. Modules of this package are located by the package's folder."""
    try:
        current = os.getcwd()  # noqa: PTH109 - pathlib imports modules itself
    except FileNotFoundError:
        return
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != current]  # noqa: PTH100
