"""What the scripts share: HTTP, vector files, the screen, statistics. numpy and nothing else."""

import sys

try:
    import numpy  # noqa: F401
except ImportError:
    sys.exit(
        "numpy is missing for this Python: apt-get install python3-numpy and run the script with "
        "/usr/bin/python3, or pip install numpy"
    )
