"""Flat command-line flags and YAML keys, made from the dataclasses that declare the settings."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from sgmse.common.errors import UserError

Settings = TypeVar("Settings")
_NUMBERS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """The names given in one file or on the command line, and every value once it is laid over those before.

    source: the file; empty for the command line.
    """

    source: str
    typed: set[str]
    values: dict[str, Any]


class HelpFormatter(DefaultHelpFormatter):
    """The description as it is written, a short usage, each default once."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text

    def _format_usage(self, *args: Any, **kwargs: Any) -> str:
        return f"usage: {self._prog} [--SETTING VALUE ...] [--config FILE ...]\n\n"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = any(action.default is value for value in (None, False, argparse.SUPPRESS)) or action.default == []
        return text if silent else f"{text} (default: {_shown(action.default)})".replace("%", "%%")


class Parser(ArgumentParser):
    """Errors are one sentence. `hints`: the type of each setting."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, default_env=False, allow_abbrev=False, formatter_class=HelpFormatter)
        self.hints: dict[str, Any] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(message.split())
        wrong = re.match(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', text)
        if wrong and wrong[1] in self.hints:
            raise UserError(f"--{wrong[1]} {wrong[2]}: {_expected(self.hints[wrong[1]])} is needed (see --help)")
        unknown = re.match(r"unrecognized arguments: (\S+)", text)
        if unknown:
            name = unknown[1].partition("=")[0]
            if not name.startswith("--"):
                raise UserError(f"{name}: belongs to no flag; write --SETTING VALUE (see --help)")
            near = did_you_mean(name, [f"--{known}" for known in self.hints])
            raise UserError(f"{name}: no such setting{near} (see --help)")
        raise UserError(f"{text.removeprefix('argument ')} (see --help)")


def make_parser(groups: Sequence[type], description: str, overrides: Sequence[type] = ()) -> Parser:
    """A parser with one flag per field of `groups`; fields of `overrides` default to None, "as it is stored"."""
    parser = Parser(description)
    parser.add_argument("--config", action="append", type=str, metavar="FILE")
    parser._actions[-1].help = "YAML file with lines such as `lr: 0.0001`; repeatable, later files and flags win"
    for cls in (*groups, *overrides):
        _add_flags(parser, cls, optional=cls in overrides)
    return parser


def _add_flags(parser: Parser, cls: type, optional: bool) -> None:
    title = str(parse_from_object(cls).short_description).partition(".")[0]
    group = parser.add_argument_group(title + (", by default as stored in the checkpoint" if optional else ""))
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(cls).params}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        default = f.default_factory() if callable(f.default_factory) else f.default
        hint = Literal[f.metadata["choices"]] if "choices" in f.metadata else hints[f.name]
        parser.hints[f.name] = hint
        options: dict[str, Any] = {"help": helps[f.name], "default": None if optional else default}
        if hint is bool:
            options["action"] = ActionYesNo(no_prefix="no-") if optional or default else "store_true"
        elif typing.get_origin(hint) is list:
            options |= {"nargs": "+", "type": typing.get_args(hint)[0], "metavar": f.name.upper()}
        else:
            choices = _choices(hint)
            metavar = f"{{{','.join(choices)}}}" if choices else f.name.upper()
            options |= {"type": hint | None if optional else hint, "metavar": metavar}
        group.add_argument(f"--{f.name}", **options)


def _choices(hint: Any) -> list[str]:
    """The values that a Literal, or a union of some, allows."""
    if typing.get_origin(hint) is Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [value for part in typing.get_args(hint) for value in _choices(part)]


def _expected(hint: Any) -> str:
    choices = _choices(hint)
    if choices:
        return f"one of {', '.join(choices)}"
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if kind in _NUMBERS]
    return _NUMBERS[kinds[0]]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def parse(parser: Parser, argv: Sequence[str], preset: Path | None = None) -> list[Layer]:
    """Read flags over the YAML files they name over the preset over the defaults: a layer per file, then the flags."""
    lists = {f"--{name}" for name, hint in parser.hints.items() if hint == list[str]}
    given = vars(parser.parse_args(_joined(argv, lists), defaults=False))
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"--{name} is empty; give a value or leave it out (an unset variable of the shell?)")
    files = [(name, checked(read_yaml(Path(name)), parser, Path(name))) for name in given.pop("config", None) or []]
    values: dict[str, Any] = vars(parser.get_defaults())
    values.pop("config")
    values |= checked(read_yaml(preset), parser, preset) if preset is not None else {}
    layers = []
    for source, typed in (*files, ("", given)):
        values = values | typed
        layers.append(Layer(source, set(typed), values))
    return layers


def take(cls: type[Settings], values: dict[str, Any]) -> Settings:
    """An instance of a settings class from the values that belong to it."""
    return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file, unchecked. Raises `UserError` unless it is a mapping, or empty."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check --config")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: is no valid YAML ({where}{error.problem}); correct it") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{path}: cannot be read as YAML; check the name of the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; write lines such as `lr: 0.0001`")
    return content


def checked(content: dict[str, Any], parser: Parser, path: Path) -> dict[str, Any]:
    """The settings that were read from `path`, checked and typed as if they had been written as flags."""
    content = dict(content)
    for name in content:
        if name not in parser.hints:
            raise UserError(f"{path}: no such setting: {name}{did_you_mean(str(name), list(parser.hints))}")
        hint, value = parser.hints[name], content[name]
        if typing.get_origin(hint) is list and not isinstance(value, list | dict | None):
            content[name] = [value]
        elif (value is None and None.__class__ not in typing.get_args(hint)) or isinstance(value, dict):
            raise UserError(f"{path}: {name} {value}: {_expected(hint)} is needed")
        elif hint is bool and not isinstance(value, bool):
            raise UserError(f"{path}: {name} {value}: true or false is needed")
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
