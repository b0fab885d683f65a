"""Every command that README.md and docs/ tell a reader to type exists and knows its flags."""

import contextlib
import importlib
import io
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:python ((?:scripts/)?\w+\.py)|(?<![\w/-])(sgmse-\w+))([^`\n|&;]*)")
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")


def commands():
    """(file, command, flags) of every command, lines that end in a backslash joined, comments cut."""
    for path in TEXTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, entry, rest in COMMAND.findall(text):
            yield path.name, script or entry, tuple(FLAG.findall(rest.partition("  #")[0]))


@cache
def known_flags(script):
    """The flags in the --help_all of a command."""
    name = ENTRIES[script].partition(":")[0] if script in ENTRIES else script.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    main = getattr(module, "main", None) or module.command.args[0]  # command is partial(run, main)
    told, before = io.StringIO(), sys.argv
    sys.argv = [script, "--help_all"]
    try:
        with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
            main()
    finally:
        sys.argv = before
    return set(FLAG.findall(told.getvalue()))


@pytest.mark.parametrize(
    ("text", "script", "flags"),
    [pytest.param(*found, id=f"{found[0]}: {found[1]}") for found in sorted(set(commands()))],
)
def test_documented_commands_exist_and_know_their_flags(text, script, flags):
    assert script in ENTRIES or (ROOT / script).is_file()
    assert set(flags) <= known_flags(script), f"{text}: {script}"


def test_commands_are_found_in_the_documents():
    found = {script for _, script, _ in commands()}
    assert {
        "sgmse-train",
        "sgmse-enhance",
        "sgmse-demo",
        "enhancement_noise_cond.py",
        "scripts/evaluate.py",
        "scripts/reference_use.py",
    } <= found
    assert len(found) >= 12


@pytest.mark.parametrize("text", [*TEXTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_are_there(text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text.read_text(encoding="utf-8")):
        place, _, heading = target.partition("#")
        if place.startswith(("http:", "https:")):
            continue
        path = text.parent / place if place else text
        assert path.exists(), target
        if heading:
            lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}, target


def test_a_version_has_one_number():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
