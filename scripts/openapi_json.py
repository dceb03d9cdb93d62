#!/usr/bin/env python3
"""Turns api/openapi.yaml into the JSON that the daemon serves at /openapi.json.

    openapi_json.py YAML VERSION >JSON

What only YAML needs (x-anchors) is left out, and info.version becomes VERSION. The build runs this;
it needs python3-yaml.
"""

import json
import sys

import yaml


def main():
    source, version = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        document = yaml.safe_load(f)
    document.pop("x-anchors", None)
    document["info"]["version"] = version
    json.dump(document, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
