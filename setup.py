# SPDX-License-Identifier: Apache-2.0
"""Ahead-of-time compilation of the request path with mypyc; everything else is in pyproject.toml.

The packages below are plain typed Python and run as such. With BINDERD_COMPILE=1 in the environment
they are compiled to C as well, which makes the daemon's own share of a call about a third of what
it is (`make bench` shows both). `make compile` puts the result into build/compiled.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup

# Whatever a request passes through; no coroutine lives there.
COMPILED_PACKAGES = (
    "daemon/binderd/engine",
    "daemon/binderd/fuse",
    "daemon/binderd/device",
    "daemon/binderd/memory",
)


def extension_modules() -> list[object]:
    """Return what to compile: nothing unless it was asked for."""
    if os.environ.get("BINDERD_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # a build requirement only when it is used

    sources = sorted(
        str(path)
        for package in COMPILED_PACKAGES
        for path in Path(package).glob("*.py")
        if path.name != "__init__.py"
    )
    return list(mypycify(sources, opt_level="3"))


setup(ext_modules=extension_modules())
