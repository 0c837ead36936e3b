"""The kind of import-linter contract that the walls in pyproject.toml are written in: a list of what is allowed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.application import contract_utils

Broken = tuple[str, str, list[int]]
"""Who imports, what, in which lines."""


class AllowedImports(Contract):
    """Modules of `rooms` import the standard library, their own room, and what is listed in `allowed`; nothing else.

    An entry of `allowed` is a module with all below it, or a library. Imports inside functions and those for type
    checkers count as any other. An exception is a line of `ignore_imports`, beside its reason. An entry or an exception
    that nothing uses is an error, so a list never allows more than there is.
    """

    type_name = "allowed"
    rooms = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    ignore_imports = fields.SetField(subfield=fields.ImportExpressionField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at every direct import of every module in the rooms."""
        ignored = contract_utils.remove_ignored_imports_and_report(
            graph=graph,
            ignore_imports=self.ignore_imports,
            unmatched_alerting=contract_utils.AlertLevel.ERROR,
        )
        used, broken = set[str](), list[Broken]()
        for importer in sorted(module for room in self.rooms for module in modules_of(graph, room)):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if imported.partition(".")[0] in sys.stdlib_module_names or within(imported, self.rooms):
                    continue
                doors = within(imported, self.allowed)
                used.update(doors)
                if not doors:
                    details = graph.get_import_details(importer=importer, imported=imported)
                    broken.append((importer, imported, [detail["line_number"] for detail in details]))
        unused = [door for door in self.allowed if door not in used]
        return ContractCheck(
            kept=not broken and not unused,
            warnings=list(ignored.warnings),
            ignored_import_count=ignored.ignored_import_count,
            metadata={"broken": broken, "unused": unused},
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Each import that is not allowed, with its lines."""
        for importer, imported, lines in check.metadata["broken"]:
            output.print_error(f"- {importer} -> {imported} (l.{', '.join(map(str, lines))})", bold=False)
        for door in check.metadata["unused"]:
            output.print_error(f"- {door} is allowed, but nothing here imports it", bold=False)
        output.print_error(f"allowed: {', '.join(self.allowed) or 'nothing but the standard library'}", bold=False)
        output.new_line()


def modules_of(graph: ImportGraph, room: str) -> set[str]:
    """The module `room` and all below it. Raises ValueError where there is none, so that no wall stands in the air."""
    if room not in graph.modules:
        raise ValueError(f"{room} is a room of a wall, but there is no such module")
    return {room, *graph.find_descendants(room)}


def within(module: str, doors: Sequence[str]) -> list[str]:
    """Those of `doors` that are `module` or lie above it."""
    return [door for door in doors if module == door or module.startswith(f"{door}.")]
