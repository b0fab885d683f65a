"""`Registry`: things that a setting chooses by name: ours, and those of other packages by `package.module:NAME`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sgmse.common.errors import UserError

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """A dictionary that also finds what another package holds: `ENCODERS["my_package.encoders:Mine"]`.

    Such an entry is imported when it is first asked for, by a flag, a config.yaml or a checkpoint, and kept. What the
    dictionary lists are ours and those that were asked for.

    Args:
        flag: the setting that chooses, for what is said of a wrong name.
        kind: what an entry is: an instance of this class.
        of_classes: an entry is a subclass instead.
        find_fault: what an entry of this kind still lacks, or None.
        adopt: (name, entry) → the entry as it is kept; None: as it is.
    """

    def __init__(
        self,
        flag: str,
        kind: type,
        entries: Mapping[str, Entry],
        of_classes: bool = False,
        find_fault: Callable[[Any], str | None] | None = None,
        adopt: Callable[[str, Any], Entry] | None = None,
    ) -> None:
        super().__init__(entries)
        self.flag, self.kind, self.of_classes, self.find_fault, self.adopt = flag, kind, of_classes, find_fault, adopt

    def __missing__(self, name: str) -> Entry:
        if ":" not in name:
            raise KeyError(name)
        found = self._import(name)
        is_subclass = isinstance(found, type) and issubclass(found, self.kind)
        if not (is_subclass if self.of_classes else isinstance(found, self.kind)):
            what = f"{'subclass of ' if self.of_classes else ''}{self.kind.__name__}"
            raise UserError(f"{self.flag} {name}: is no {what}, which is needed (see CONTRIBUTING.md)")
        fault = None if self.find_fault is None else self.find_fault(found)
        if fault is not None:
            raise UserError(f"{self.flag} {name}: {fault} (see CONTRIBUTING.md)")
        self[name] = found if self.adopt is None else self.adopt(name, found)
        return self[name]

    def find(self, name: str) -> Entry | None:
        """The entry of that name; None for one of ours that does not exist."""
        return self[name] if name in self or ":" in name else None

    def _import(self, name: str) -> Any:
        """What the module before the colon holds under the name behind it."""
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise UserError(f"{self.flag} {name}: is no name of a plug-in; write package.module:NAME")
        try:
            holder = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                raise UserError(
                    f"{self.flag} {name}: there is no module {error.name}; install its package or name its folder in "
                    "PYTHONPATH"
                ) from None
            raise UserError(f"{self.flag} {name}: {module} needs the module {error.name}; install it") from None
        except Exception as error:  # whatever the module does when it is imported
            raise UserError(
                f"{self.flag} {name}: {module} cannot be imported ({type(error).__name__}: {error}); mend it"
            ) from error
        if not hasattr(holder, attribute):
            raise UserError(f"{self.flag} {name}: {module} holds no {attribute}; check the name")
        return getattr(holder, attribute)
