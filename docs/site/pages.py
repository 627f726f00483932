# SPDX-License-Identifier: Apache-2.0
"""The pages of the site, which mkdocs would otherwise look for in one folder only.

Documents lie where they belong (beside the client, the daemon, at the top), and their links say so.
Here each keeps its place below the top, so that the same links work in the repository and on the
site. What they link to and is no document, an example or a module, is copied as it is.

The commands and the configuration have pages that are made from the same text as ``--help``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

TOP: Final = Path(__file__).parents[2]
_LINK: Final = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")  # of the same repository


def on_files(_files: Files, config: MkDocsConfig) -> Files:
    """Return the documents, what they link to, and the pages that are made here."""
    documents = [
        *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        TOP / "client" / "README.md",
        TOP / "daemon" / "DESIGN.md",
        *sorted((TOP / "docs").glob("*.md")),
    ]
    linked = {
        (document.parent / link).resolve()
        for document in documents
        for link in _LINK.findall(document.read_text(encoding="utf-8"))
    }
    others = sorted(path for path in linked if path.is_file() and path.suffix != ".md")
    pages = [
        File.generated(config, str(path.relative_to(TOP)), abs_src_path=str(path))
        for path in (*documents, *others)
    ]
    for name, text in (("COMMANDS", _commands()), ("CONFIGURATION", _configuration())):
        pages.append(File.generated(config, f"docs/{name}.md", content=text))
    return Files(pages)


def _commands() -> str:
    sys.path.insert(0, str(TOP / "docs" / "manual"))
    from commands import COMMANDS, parser_of, subcommands

    parts = ["# Commands\n\nEach has a manual page with the same text.\n"]
    for command in COMMANDS:
        parser = parser_of(command)
        parts.append(f"## {command.name}\n\n{command.summary}\n")
        parts.append(f"```text\n{parser.format_help()}```\n")
        for name, (subparser, _) in subcommands(parser).items():
            parts.append(f"### {command.name} {name}\n")
            parts.append(f"```text\n{subparser.format_help()}```\n")
    return "\n".join(parts)


def _configuration() -> str:
    from binderd.options import example

    return (
        "# Configuration\n\n`/etc/binderd/binderd.toml`, as `binderd --print-config` prints it:\n\n"
        f"```toml\n{example()}```\n"
    )
