"""YAML files of settings, read more strictly than YAML asks: a key that stands twice is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sgmse.common.errors import UserError


def read_yaml(path: Path, as_text: bool = False) -> dict[str, Any]:
    """The content of a YAML file, unchecked. Raises `UserError` unless it is a mapping, or empty, without a key twice.

    as_text: numbers and truth values stay as they are written, for `cli.checked` to read as the setting needs them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check --config")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _TextLoader if as_text else _Loader) or {}
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: is no valid YAML ({where}{error.problem}); correct it") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{path}: cannot be read as YAML; check the name of the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; write lines such as `lr: 0.0001`")
    return content


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for (key, _), value in zip(node.value, keys, strict=True):
            if keys.count(value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{value} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


class _TextLoader(_Loader):
    """Leaves every scalar but null as it is written: `lr: 1e-4`, `wandb_name: 007`."""

    yaml_implicit_resolvers = {  # noqa: RUF012, as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
