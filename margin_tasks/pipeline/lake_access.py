"""How the stages and the command line reach the lake of a home."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.settings import Settings
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import Lake, open_lake


def lake_settings(settings: Settings) -> LakeSettings:
    """Return where the lake of these settings is."""
    return LakeSettings.at_home(settings.home, catalog=settings.lake_catalog, data_path=settings.lake_data)


@contextmanager
def lake(settings: Settings, *, holder: str, is_read_only: bool = False) -> Iterator[Lake]:
    """Open the lake for one block of work, telling whoever watches when another process has to finish first."""
    with open_lake(
        lake_settings(settings),
        holder=holder,
        is_read_only=is_read_only,
        wait_seconds=settings.lake_wait_seconds,
        on_wait=say,
    ) as opened:
        yield opened
