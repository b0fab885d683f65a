"""Single modules out of packages that must not be imported whole.

`import laion_clap` loads tokenizers from a hub and `import panns_inference` runs wget. Their networks need neither, so
the module that defines a network is imported below an alias package, and the package's own `__init__` never runs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

from sgmse.common.errors import UserError


def package_folder(package: str, install: str) -> Path:
    """Where a package lies, without importing it. Raises `UserError` naming the distribution to install."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is missing; run `pip install {install}`")
    return Path(spec.origin).parent


def module_of(package: str, folder: str, name: str, install: str) -> ModuleType:
    """Import the module `name` in a folder of a package, and what it imports from there; nothing else of the package.

    Args:
        package: top-level name.
        folder: inside the package, "" for the package itself.
        install: distributions that the module needs, as given to pip.
    """
    alias = f"_{package}_{folder}".rstrip("_")
    if alias not in sys.modules:
        spec = ModuleSpec(alias, loader=None, is_package=True)
        spec.submodule_search_locations = [str(package_folder(package, install) / folder)]
        sys.modules[alias] = module_from_spec(spec)
    try:
        return import_module(f"{alias}.{name}")
    except ImportError as error:
        raise UserError(f"{package} cannot be used ({error}); run `pip install {install}`") from None
