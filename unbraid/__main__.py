"""`python -m unbraid`: the command line, where the script is not on the path."""

import os
import sys
from pathlib import Path

# `-m` puts the current folder first, where a user's own tasks.py or model/ would hide ours.
_HERE = Path(__file__).resolve().parent.parent
if not sys.flags.safe_path and sys.path and Path(sys.path[0] or os.getcwd()).resolve() != _HERE:
    del sys.path[0]

from flows.cli import main  # noqa: E402

if __name__ == "__main__":
    main(prog_name="unbraid")
