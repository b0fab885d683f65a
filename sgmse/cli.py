"""Flat command-line flags and YAML keys, made from the dataclasses that declare the settings."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser

from sgmse.errors import UserError

Settings = TypeVar("Settings")


class Parser(ArgumentParser):
    """Errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(message.split())
        raise UserError(f"{text} (see --help)")


def make_parser(groups: Sequence[type], description: str, overrides: Sequence[type] = ()) -> Parser:
    """A parser with one flag per field of `groups`; fields of `overrides` default to None, "as it is stored"."""
    parser = Parser(description=description, default_env=False)
    parser.add_argument("--config", action="append", type=str, help="YAML file of settings; repeatable, later ones win")
    for cls in (*groups, *overrides):
        _add_flags(parser, cls, optional=cls in overrides)
    return parser


def _add_flags(parser: Parser, cls: type, optional: bool) -> None:
    group = parser.add_argument_group(str(parse_from_object(cls).short_description))
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(cls).params}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        default = f.default_factory() if callable(f.default_factory) else f.default
        hint, text = hints[f.name], helps[f.name]
        if optional:
            text += f" (stored in the checkpoint; if not, {default})"
            default, hint = None, hint | None
        options: dict[str, Any] = {"help": text, "default": default}
        if hint is bool:
            options["action"] = "store_true"
        elif typing.get_origin(hint) is list:
            options |= {"nargs": "+", "type": typing.get_args(hint)[0]}
        elif "choices" in f.metadata:
            options["choices"] = f.metadata["choices"]
        else:
            options["type"] = hint
        group.add_argument(f"--{f.name}", **options)


def parse(parser: Parser, argv: Sequence[str], preset: Path | None = None) -> tuple[dict[str, Any], list[set[str]]]:
    """Read flags, and the YAML files they name, over the preset and the defaults.

    Returns:
        all values by name, and what was typed: the names given on the command line, then those of each file.
    """
    lists = {f"--{a.dest}" for a in parser._actions if a.nargs == "+"}
    argv = _joined(argv, lists)
    given = vars(parser.parse_args(argv, defaults=False))
    files = [Path(name) for name in given.pop("config", None) or []]
    layers = [_read_yaml(path, parser) for path in files]
    base = _read_yaml(preset, parser) if preset is not None and not files else {}
    values: dict[str, Any] = vars(parser.get_defaults())
    values.pop("config")
    for layer in (base, *layers, given):
        values |= layer
    return values, [set(given), *(set(layer) for layer in layers)]


def take(cls: type[Settings], values: dict[str, Any]) -> Settings:
    """An instance of a settings class from the values that belong to it."""
    return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def _read_yaml(path: Path, parser: Parser) -> dict[str, Any]:
    """The settings in a YAML file, checked as if they had been typed."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}); check --config") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; write lines such as `lr: 0.0001`")
    known = [a.dest for a in parser._actions]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise UserError(f"{path}: unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        return vars(parser.parse_object(content, defaults=False))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _joined(argv: Sequence[str], lists: set[str]) -> list[str]:
    """`--noise_dir a --noise_dir b` → `--noise_dir a b` for flags that take lists."""
    joined: list[str] = []
    collected: dict[str, list[str]] = {}
    current: list[str] = joined
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if name in lists:
                current = collected.setdefault(name, [])
                current += [value] if equals else []
                continue
            current = joined
        current.append(word)
    for name, values in collected.items():
        joined += [name, *values]
    return joined
