#!/usr/bin/env python3
"""Turns api/openapi.yaml into the JSON that the daemon serves at /openapi.json.

    openapi_json.py YAML VERSION >JSON

What only YAML needs (x-anchors) is left out, and info.version becomes VERSION. A name that comes
twice in one mapping is refused: YAML would silently take the last. The build runs this; it needs
python3-yaml.
"""

import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                sys.exit(f"{key.start_mark}: '{key.value}' comes twice")
            seen.add(key.value)
        return node


def main():
    source, version = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        document = yaml.load(f, Loader)
    document.pop("x-anchors", None)
    document["info"]["version"] = version
    json.dump(document, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
