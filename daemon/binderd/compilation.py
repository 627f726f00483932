# SPDX-License-Identifier: Apache-2.0
"""What of the daemon is compiled (mypyc), and whether it is where it runs.

setup.py runs this file for the table, so it needs nothing of the rest of the package.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.machinery import ExtensionFileLoader
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# Whatever a request passes through, packages and modules; no coroutine lives there.
REQUEST_PATH: Final = (
    "binderd.engine",
    "binderd.fuse",
    "binderd.device",
    "binderd.memory",
    "binderd.descriptors.attachment",
    "binderd.descriptors.delivery",
    "binderd.descriptors.in_flight",
    "binderd.channel.transfer",
    "binderd.heartbeat",
    "binderd.channel.readiness",
    "binderd.channel.spin",
    "binderd.linux",
    # Numbers and layouts: what is compiled finds them without a look-up only where they are, too.
    "binderwire.binder_abi",
    "binderwire.extension_abi",
    "binderwire.fuse_abi",
    "binderwire.ioc",
)
IN_C: Final = ("binderd.edge.native", "binderwire.quick")
# Below which folder of the repository the packages are.
PLACES: Final = {"binderd": "daemon", "binderwire": "protocol"}
_NAMED_MAX: Final = 3  # how many modules are named where there is a mixture


def describe() -> str:
    """Return ``compiled``, ``interpreted``, or what is which, of the modules that are loaded."""
    kinds = {module.__name__: _is_compiled(module) for module in _request_path()}
    kinds |= {name: name in sys.modules for name in IN_C}  # else its Python was taken
    if all(kinds.values()):
        return "compiled"
    slow = [name for name, is_compiled in kinds.items() if not is_compiled]
    if len(slow) == len(kinds):
        return "interpreted"
    names = ", ".join(slow[:_NAMED_MAX]) + (", ..." if len(slow) > _NAMED_MAX else "")
    return f"mixed: {len(slow)} of {len(kinds)} modules interpreted ({names}); install it again"


def _request_path() -> Iterator[ModuleType]:
    """Load and yield every module of the request path."""
    # First, as the daemon does: some orders of loading compiled modules crash the interpreter.
    importlib.import_module("binderd.service")
    for name in REQUEST_PATH:
        module = importlib.import_module(name)
        if not hasattr(module, "__path__"):
            yield module
            continue
        for module_info in pkgutil.iter_modules(module.__path__, f"{name}."):
            yield importlib.import_module(module_info.name)


def _is_compiled(module: ModuleType) -> bool:
    return module.__spec__ is not None and isinstance(module.__spec__.loader, ExtensionFileLoader)
