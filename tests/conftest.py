"""Switches of the test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write examples/expected anew from what is computed now; look at the difference before you commit it",
    )
