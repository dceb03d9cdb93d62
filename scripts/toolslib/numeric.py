"""np: numpy, imported where it is used first, so that --help and usage errors do without it."""

import importlib


class _Numpy:
    def __getattr__(self, name):
        try:
            return getattr(importlib.import_module("numpy"), name)
        except ModuleNotFoundError as e:
            raise SystemExit(
                "numpy is missing for this Python: apt-get install python3-numpy and run the "
                "script with /usr/bin/python3, or pip install numpy"
            ) from e


np = _Numpy()
