"""Compiled code on disk is renewed only when its own file changes: it must not be built from anything elsewhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import margin_tasks

PACKAGE = Path(margin_tasks.__file__).parent
COMPILED = sorted(path for path in PACKAGE.rglob("*.py") if "cache=True" in path.read_text(encoding="utf-8"))


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _names_compiled(tree: ast.Module) -> set[str]:
    """Names that the bodies of compiled functions use, annotations aside."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(each) for each in node.decorator_list):
            names = names.union(*map(_names, node.body))
    return names


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_compiled_functions_use_nothing_from_other_files_of_the_package(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("margin_tasks")
        for alias in node.names
    }
    for node in tree.body:  # a constant that is made of a foreign one is foreign too
        if isinstance(node, ast.Assign) and foreign & _names(node.value):
            foreign |= {name for target in node.targets for name in _names(target)}
    assert _names_compiled(tree), "the file holds no compiled function"
    assert not foreign & _names_compiled(tree)


def test_there_are_compiled_files():
    assert COMPILED
