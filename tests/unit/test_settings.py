"""The README's table of settings is the settings class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from margin_tasks.pipeline.settings import PROJECT_ROOT, Settings


def test_the_readme_lists_every_setting() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(MARGIN_[A-Z_]+)`", readme.split("## Settings")[1].split("##")[0]))
    assert documented == {f"MARGIN_{name.upper()}" for name in Settings.model_fields}


def test_a_home_that_is_asked_for_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path / "environment"))
    assert Settings().home == tmp_path / "environment"
    assert Settings().at_home(tmp_path / "asked").home == tmp_path / "asked"
