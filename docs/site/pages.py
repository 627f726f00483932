# SPDX-License-Identifier: Apache-2.0
"""The pages of the site, which mkdocs would otherwise look for in one folder only.

Documents lie where they belong (beside the client, the daemon, at the top), and their links say so.
Here each keeps its place below the top, so that the same links work in the repository and on the
site. What they link to and is no document, an example or a module, is copied as it is.

The commands and the configuration have pages that are made from the same text as ``--help``, and
the Python API one that mkdocstrings makes from docstrings: every name that a module of
``binderclient`` has in its ``__all__``.
"""

from __future__ import annotations

import ast
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
    made = (
        ("COMMANDS", _commands()),
        ("CONFIGURATION", _configuration()),
        ("API", _reference()),
    )
    for name, text in made:
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


def public_names() -> dict[str, list[str]]:
    """Return the public names of the Python API, by module; the modules are not imported."""
    client = TOP / "client"
    found = {}
    for path in sorted((client / "binderclient").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
                parts = path.relative_to(client).with_suffix("").parts
                module = ".".join(part for part in parts if part != "__init__")
                found[module] = list(ast.literal_eval(statement.value))
    return found


def _reference() -> str:
    parts = ["# The Python API\n\nMade from the docstrings; client/README.md is where to begin.\n"]
    for module, names in public_names().items():
        parts.append(f"## {module}\n")
        for name in names:
            # A Parcel is made of three classes, of which nobody needs to know.
            inherits = str(name == "Parcel").lower()
            parts.append(f"::: {module}.{name}\n    options: {{inherited_members: {inherits}}}\n")
    return "\n".join(parts)
