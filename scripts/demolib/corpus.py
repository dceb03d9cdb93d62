"""The texts of the demo: every package in apt's own lists, with its long description.

apt keeps two kinds of lists. Packages has the fields and the one-line summary of each package;
Translation-en has the long descriptions, joined by the MD5 in Description-md5. Containers often
leave Translation-en out; then the lists are fetched once into a directory of the demo's own, so
that the machine's stay as they are and root is not needed.
"""

import hashlib
import os
import subprocess
from pathlib import Path

APT_HELPER = "/usr/lib/apt/apt-helper"
ENGLISH = ["-o", "Acquire::Languages=en"]
KINDS = ("Packages", "Translations")

FEATURES = {
    "summary": "string",
    "section": "string",
    "priority": "string",
    "version": "string",
    "source": "string",
    "maintainer": "string",
    "homepage": "string",
    "installed_size_kb": "int64",
    "download_bytes": "int64",
    "tags": "string[]",
}


class CorpusError(Exception):
    """A sentence for the user: what apt could not do."""


def _run(command, what):
    try:
        done = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    except OSError as e:
        raise CorpusError(f"{what}: {e}") from e
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CorpusError(f"{what}: {' '.join(said[-3:]) or 'failed without a word'}")
    return done.stdout


def _list_files(options, kind):
    wanted = ["--format", "$(FILENAME)", f"Created-By: {kind}"]
    out = _run(["apt-get", "indextargets", *ENGLISH, *options, *wanted], "apt-get indextargets")
    return sorted(line for line in out.decode().splitlines() if line)


def _private_options(directory):
    """apt options that keep lists and caches below `directory`; the machine's sources are used."""
    root = Path(directory).resolve()
    (root / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (root / "cache").mkdir(exist_ok=True)
    return [
        *("-o", f"Dir::State::Lists={root}/lists"),
        *("-o", f"Dir::Cache={root}/cache"),
        *("-o", "APT::Sandbox::User=root"),
    ]


def find_lists(directory, note):
    """The apt options under which both kinds of lists are there; fetches them if need be."""
    if all(_list_files([], kind) for kind in KINDS):
        return []
    options = _private_options(directory)
    if not all(_list_files(options, kind) for kind in KINDS):
        note("apt's lists lack the long descriptions: fetching them into the demo's own directory")
        update = ["apt-get", "update", "-q", *ENGLISH, *options]
        _run(update, "apt-get update (is there a network?)")
    if not _list_files(options, "Packages"):
        raise CorpusError("apt-get update brought no package lists: check /etc/apt/sources.list")
    if not _list_files(options, "Translations"):
        note("this mirror has no long descriptions: the summaries alone are used")
    return options


class Lists:
    """The raw text of the lists and the digest that names it."""

    def __init__(self, options):
        self.packages = _run(["apt-cache", "dumpavail", *options], "apt-cache dumpavail")
        files = _list_files(options, "Translations")
        self.translations = [_run([APT_HELPER, "cat-file", f], f"reading {f}") for f in files]
        digest = hashlib.sha256(self.packages)
        for text in self.translations:
            digest.update(text)
        self.digest = digest.hexdigest()


def _stanzas(raw):
    """Dicts of the fields of each stanza; a field's continuation lines keep their newlines."""
    for block in raw.decode(errors="replace").split("\n\n"):
        fields, name = {}, None
        for line in block.split("\n"):
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def _long_descriptions(lists):
    found = {}
    for raw in lists.translations:
        for fields in _stanzas(raw):
            _, _, text = fields.get("Description-en", "").partition("\n")
            found[fields.get("Description-md5")] = text
    return found


def _integer(text):
    return int(text) if text and text.isdigit() else None


def _tags(text):
    return [tag.strip() for tag in text.split(",") if tag.strip()] if text else None


def _features(fields, summary):
    return {
        "summary": summary or None,
        "section": fields.get("Section"),
        "priority": fields.get("Priority"),
        "version": fields.get("Version"),
        "source": fields.get("Source", fields["Package"]).split(" ")[0],
        "maintainer": fields.get("Maintainer"),
        "homepage": fields.get("Homepage"),
        "installed_size_kb": _integer(fields.get("Installed-Size")),
        "download_bytes": _integer(fields.get("Size")),
        "tags": _tags(fields.get("Tag")),
    }


class Package:
    """One text and what is known beside it."""

    def __init__(self, fields, long_descriptions):
        self.name = fields["Package"]
        summary, _, rest = fields.get("Description", "").partition("\n")
        self.description = rest or long_descriptions.get(fields.get("Description-md5"), "")
        self.features = _features(fields, summary)


def parse(lists):
    """All packages, each name once, in the order of their names."""
    long_descriptions = _long_descriptions(lists)
    by_name = {}
    for fields in _stanzas(lists.packages):
        if "Package" in fields:
            by_name.setdefault(fields["Package"], Package(fields, long_descriptions))
    if not by_name:
        raise CorpusError("apt-cache dumpavail named no package: run apt-get update")
    return [by_name[name] for name in sorted(by_name)]
