"""The command line and YAML files of every command, made from the dataclasses that declare its settings.

A setting is a field of a dataclass: its name is the flag and the YAML key, its type says what a value may be (with
`Bounds` in `Annotated`), its docstring is the help. A value is read in one way, whether it is written on the command
line (`--lr 1e-3`) or in a file (`lr: 1e-3`).

  @dataclass(frozen=True)
  class Probes:
      \"""What to look at\"""

      ckpt: Path = positional()
      \"""checkpoint of a conditioned model\"""
      steps: Count | None = None
      \"""steps of the sampler. Default: the checkpoint's\"""

  settings = read_command_line(Probes, __doc__)   # command.py CKPT --steps 5
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, set_parsing_settings

from sgmse.common.bounds import FileName, check_bound, choices_of, is_list, kinds_of
from sgmse.common.errors import UserError
from sgmse.common.typed import as_typed
from sgmse.settings.help import HelpFormatter, describe_value, hide_settings
from sgmse.settings.yaml_files import read_yaml

Settings = TypeVar("Settings")
_KINDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DECIMAL = re.compile(r"[-+]?((0|[1-9](_?[0-9])*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)  # not 010, .inf

_SHORT_FLAG = re.compile(r"-[A-Za-z]")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclasses.dataclass(frozen=True)
class Layer:
    """The names given in one file or on the command line, and every value once it is laid over those before.

    source: the file; empty for the command line.
    """

    source: str
    typed: set[str]
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ConfigFiles:
    """Files"""

    config: list[FileName] = dataclasses.field(default_factory=list)
    """YAML file with lines such as `lr: 0.0001`; repeatable, later files and flags win"""


def positional(**options: Any) -> Any:
    """A field that is written without its flag; needed unless `default` or `default_factory` is given.

    `field(metadata={"short": "-o"})` gives a field a second, short flag.
    """
    return dataclasses.field(metadata={"positional": True}, **options)


class Parser(ArgumentParser):
    """The settings that a command takes. Errors are one sentence.

    hints: the type of each setting, with its bounds.
    positionals: settings that are written without their flag, in this order.
    short: the setting of each short flag.
    common: the settings that --help shows; empty: all.
    details: what --help_all says beyond the description.
    """

    def __init__(self, description: str, with_files: bool, common: Sequence[str] = (), details: str = "") -> None:
        super().__init__(description=description, allow_abbrev=False, formatter_class=HelpFormatter)
        self.with_files, self.common, self.details = with_files, list(common), details
        self.hints: dict[str, Any] = {}
        self.positionals: list[str] = []
        self.short: dict[str, str] = {}

    def print_settings(self, everything: bool) -> None:
        """Print the help: the common settings, or every one."""
        self.description = as_typed(f"{self.description}{self.details if everything else ''}")
        if self.common and not everything:
            hide_settings(self, self.common, len(self.hints))
        self.print_help()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(message.split())
        wrong = re.match(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', text)
        if wrong:
            needed = _describe_type(self.hints[wrong[1]])
            raise UserError(f"{self.flag(wrong[1])} {wrong[2]}: {needed} is needed (see --help)")
        absent = re.match("the following arguments are required: (.*)", text)
        if absent:
            names = " and ".join(self.flag(name) for name in absent[1].split(", "))
            raise UserError(f"{names} must be given (see --help)")
        raise UserError(f"{text} (see --help)")

    def flag(self, name: str) -> str:
        """How a setting is written: `--lr`, or `CKPT` where it has no flag."""
        return name.upper() if name in self.positionals else f"--{name}"


def make_parser(
    groups: Sequence[type],
    description: str,
    overrides: Sequence[type] = (),
    with_files: bool = True,
    common: Sequence[str] = (),
    details: str = "",
) -> Parser:
    """A parser with one flag per field of `groups`; fields of `overrides` default to None, "as it is stored".

    Args:
        with_files: settings may also be written in YAML files that --config names.
        common: the settings that --help shows, the others being left to --help_all; empty: all.
        details: what --help_all says beyond the description.
    """
    parser = Parser(description, with_files, common, details)
    for cls in (*([ConfigFiles] if with_files else []), *groups, *overrides):
        _add_settings(parser, cls, optional=cls in overrides)
    unknown = set(common) - parser.hints.keys()
    assert not unknown, f"common settings that do not exist: {unknown}"
    required = {action.dest for action in parser._actions if action.required}
    shown = [name.upper() + (" ..." if is_list(parser.hints[name]) else "") for name in parser.positionals]
    shown = [t if name in required else f"[{t}]" for name, t in zip(parser.positionals, shown, strict=True)]
    files = ["[--config FILE ...]"] if with_files else []
    parser.usage = " ".join(["%(prog)s", *shown, "[--SETTING VALUE ...]", *files])
    return parser


def _add_settings(parser: Parser, cls: type, optional: bool) -> None:
    """Add the fields of a dataclass; `optional` ones have no default of their own."""
    title = str(parse_from_object(cls).short_description).partition(".")[0]
    group = parser.add_argument_group(title + (", by default as stored in the checkpoint" if optional else ""))
    hints, fields = typing.get_type_hints(cls, include_extras=True), dataclasses.fields(cls)
    # types instead of their texts: jsonargparse would run what stands below TYPE_CHECKING in the module to find them
    cls.__init__.__annotations__.update(hints)  # type: ignore[misc]
    group.add_class_arguments(cls, as_group=False)
    parser.hints |= {f.name: hints[f.name] | None if optional else hints[f.name] for f in fields}
    parser.positionals += [f.name for f in fields if f.metadata.get("positional")]
    parser.short |= {f.metadata["short"]: f.name for f in fields if "short" in f.metadata}
    if optional:
        parser.set_defaults({f.name: None for f in fields})
    short = {name: flag for flag, name in parser.short.items()}
    for action in group._group_actions:  # what --help shows; `read_words` reads the words themselves
        name, hint = action.dest, parser.hints[action.dest]
        is_positional = name in parser.positionals
        shown = name.upper() + (" ..." if is_list(hint) else "") if is_positional else describe_value(name, hint)
        if bool in kinds_of(hint):
            shown = f"| --no-{name}" if optional or action.default else ""
        choices = choices_of(hint)
        if any(choice not in f"{shown} {action.help}" for choice in choices):
            action.help = f"{action.help}. One of: {', '.join(choices)}"
        action.metavar = shown
        action.option_strings = [] if is_positional else [*([short[name]] if name in short else []), f"--{name}"]


def parse(parser: Parser, argv: Sequence[str], preset: Path | None = None) -> list[Layer]:
    """Read flags over the YAML files they name over the preset over the defaults: a layer per file, then the flags."""
    given = checked(read_words(argv, parser), parser)
    files = given.pop("config", []) if parser.with_files else []
    layers = [(name, checked(read_yaml(Path(name), as_text=True), parser, Path(name))) for name in files]
    values: dict[str, Any] = vars(parser.get_defaults())
    if parser.with_files:
        values.pop("config")
    if preset is not None:
        values |= checked(read_yaml(preset, as_text=True), parser, preset)
    laid: list[Layer] = []
    for source, typed in (*layers, ("", given)):
        values = values | typed
        laid.append(Layer(source, set(typed), values))
    return laid


def read_command_line(cls: type[Settings], description: str | None) -> Settings:
    """The settings of a command that has one dataclass of them and takes no --config."""
    parser = make_parser([cls], description or "", with_files=False)
    return take(cls, parse(parser, sys.argv[1:])[-1].values)


def take(cls: type[Settings], values: dict[str, Any]) -> Settings:
    """An instance of a settings class from the values that belong to it."""
    return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def read_words(argv: Sequence[str], parser: Parser) -> dict[str, Any]:
    """What is written on the command line, by setting: a text, a list of texts, or whether a flag is on.

    `--lr 1 --noise_dir a b --noise_dir c --no-compile` → {lr: "1", noise_dir: ["a", "b", "c"], compile: False}
    """
    given: dict[str, Any] = {}
    words, without_flag = list(argv), []
    while words:
        word = words.pop(0)
        if word in ("-h", "--help", "--help_all", "--help-all"):
            parser.print_settings(everything=word.endswith("all"))
            sys.exit(0)
        if not word.startswith("--") and word not in parser.short:
            if _SHORT_FLAG.fullmatch(word):
                raise UserError(f"{word}: no such setting (see --help)")
            without_flag.append(word)
            continue
        word = f"--{parser.short[word]}" if word in parser.short else word
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        switched_off = bool in kinds_of(parser.hints.get(name.removeprefix("no_"))) and name.startswith("no_")
        name = name.removeprefix("no_") if switched_off else name
        if name not in parser.hints or name in parser.positionals:
            known = [parser.flag(name) for name in parser.hints]
            raise UserError(f"{flag}: no such setting{did_you_mean(flag, known)} (see --help)")
        hint = parser.hints[name]
        if bool in kinds_of(hint):
            if equals and switched_off:
                raise UserError(f"{word}: takes no value; write {flag} or {parser.flag(name)}")
            given[name] = value if equals else not switched_off
            continue
        several = is_list(hint)
        values = [value] if equals else []
        while words and not _is_flag(words[0], parser) and not equals and (several or not values):
            values.append(words.pop(0))
        if not values:
            raise UserError(f"{flag} needs {_describe_type(hint)} after it (see --help)")
        given[name] = given.get(name, []) + values if several else values[0]
    return given | _name_positionals(without_flag, parser)


def _is_flag(word: str, parser: Parser) -> bool:
    return word.startswith("--") or word in parser.short


def _name_positionals(words: list[str], parser: Parser) -> dict[str, Any]:
    """The settings whose words stand without a flag; a list takes all that are left."""
    given: dict[str, Any] = {}
    for name in parser.positionals if words else ():
        if is_list(parser.hints[name]):
            given[name], words = words, []
        elif words:
            given[name], words = words[0], words[1:]
    if words:
        raise UserError(f"{words[0]}: belongs to no flag; write --SETTING VALUE (see --help)")
    return given


def checked(content: dict[str, Any], parser: Parser, path: Path | None = None) -> dict[str, Any]:
    """The settings of the command line, or of the file `path`, typed and within their bounds.

    content: for each name a text, a number, true or false, None, or a list of these.
    """
    try:
        if path is not None and parser.with_files and "config" in content:
            raise UserError("no such setting: config; name every file on the command line")
        read = {name: _read_value(str(name), value, parser) for name, value in content.items()}
        named = {name: value for name, value in read.items() if value is not None}
        values = read | parser.parse_object(named, defaults=False).as_dict()
        for name, value in values.items():
            check_bound(parser.flag(name), parser.hints[name], value)
    except UserError as error:
        raise error if path is None else UserError(f"{path}: {error}") from None
    return values


def _read_value(name: str, value: Any, parser: Parser) -> Any:
    """What was written for a setting: a list where one is meant, a number where one is meant."""
    if name not in parser.hints:
        raise UserError(f"no such setting: {name}{did_you_mean(name, list(parser.hints))}")
    flag, hint = parser.flag(name), parser.hints[name]
    if value == "" or (isinstance(value, list) and "" in value):
        raise UserError(f"{flag} is empty; give a value or leave it out (an unset variable of the shell?)")
    if isinstance(value, dict) and typing.get_origin(hint) is dict:
        return value  # jsonargparse looks at its keys and values
    several = is_list(hint) and value is not None
    values = value if several and isinstance(value, list) else [value]
    for v in values:
        if isinstance(v, str) and v.encode(errors="ignore") != v.encode(errors="surrogateescape"):
            raise UserError(f"{flag} {v}: the name is not UTF-8; rename the file or folder")
        if type(None) in kinds_of(hint) and not several and isinstance(v, str) and v.lower() in ("null", "~"):
            raise UserError(f"{flag} {v}: is no value; leave it out (an unset variable?)")
        if isinstance(v, list | dict) or (v is None and (several or type(None) not in kinds_of(hint))):
            raise UserError(f"{flag} {v}: {_describe_type(hint)} is needed (see --help)")
    read = [_read_scalar(v, flag, hint) for v in values]
    return read if several else read[0]


def _read_scalar(value: Any, flag: str, hint: Any) -> Any:
    """A text as the number or truth value that is meant, a number as the text that is meant."""
    kinds = kinds_of(hint)
    if isinstance(value, str) and bool in kinds:
        return _TRUTH.get(value.lower(), value)
    if isinstance(value, str) and kinds & {int, float}:
        number = _read_number(value)
        if number is None and str not in kinds:
            raise UserError(f"{flag} {value}: {_describe_type(hint)} is needed (see --help)")
        return value if number is None else number
    if isinstance(value, bool | int | float) and str in kinds and not kinds & {int, float}:
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def _read_number(text: str) -> int | float | None:
    """A finite decimal number, whole where it can be (`1e3`), else None."""
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _describe_type(hint: Any) -> str:
    if choices := choices_of(hint):
        return f"one of {', '.join(choices)}"
    return next((n for kind, n in _KINDS.items() if kind in kinds_of(hint)), str(hint).replace("typing.", ""))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
