# SPDX-License-Identifier: Apache-2.0
"""``python docs/manual DIR``: makes manual pages and shell completion below DIR/share, and DIR/etc.

The parsers are the only source, so that the pages say what --help says; the configuration file is
what --print-config prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

import shells
from binderd.options import example
from commands import COMMANDS, parser_of
from roff import page


def main(arguments: list[str]) -> int:
    """Write all files; return the exit status."""
    if len(arguments) != 1:
        print("usage: python docs/manual DIR", file=sys.stderr)
        return 2
    share = Path(arguments[0], "share")
    for command in COMMANDS:
        parser, name = parser_of(command), command.name
        for path, text in (
            (f"man/man{command.section}/{name}.{command.section}", page(command, parser)),
            (f"bash-completion/completions/{name}", shells.bash(name, parser)),
            (f"zsh/site-functions/_{name}", shells.zsh(name, parser)),
            (f"fish/vendor_completions.d/{name}.fish", shells.fish(name, parser)),
        ):
            (share / path).parent.mkdir(parents=True, exist_ok=True)
            (share / path).write_text(text, encoding="utf-8")
    folder = Path(arguments[0], "etc")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "binderd.toml").write_text(example(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
