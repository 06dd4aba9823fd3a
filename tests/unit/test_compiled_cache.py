"""Compiled code on disk is renewed only when its own file changes: it must not be built from anything elsewhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import margin_tasks

PACKAGE = Path(margin_tasks.__file__).parent
COMPILED = sorted(path for path in PACKAGE.rglob("*.py") if "cache=True" in path.read_text(encoding="utf-8"))


def _names_compiled(tree: ast.Module) -> set[str]:
    """Names that the bodies of compiled functions use, annotations aside."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(each) for each in node.decorator_list):
            names |= {each.id for statement in node.body for each in ast.walk(statement) if isinstance(each, ast.Name)}
    return names


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_compiled_functions_use_nothing_from_other_files_of_the_package(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("margin_tasks")
        for alias in node.names
    }
    assert _names_compiled(tree), "the file holds no compiled function"
    assert not imported & _names_compiled(tree)


def test_there_are_compiled_files():
    assert COMPILED
