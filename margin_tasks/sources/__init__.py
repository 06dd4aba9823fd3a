"""Sources of the feeds: each returns raw text frames with their provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.sources.delivery import DeliveryProblem, FeedDelivery, Pulled, Source, SourceError, pull_feeds
from margin_tasks.sources.export import export_feeds
from margin_tasks.sources.files import FilesSource

__all__ = [
    "DeliveryProblem",
    "FeedDelivery",
    "Pulled",
    "Source",
    "SourceError",
    "export_feeds",
    "open_source",
    "pull_feeds",
]

SPEC_FORMS = "sample, files:DIR, files:s3://bucket/prefix or sql:dialect://user:password@host/database"


def open_source(spec: str, *, generators: Mapping[str, Callable[[], Source]] | None = None) -> Source:
    """Open the source that ``spec`` names; nothing is read yet.

    Args:
        spec: ``files:DIR``, ``files:s3://bucket/prefix``, ``sql:URL``, or the name of a generator.
        generators: sources that compute their feeds, by name; ``sample`` is handed in by the pipeline because it
            prices its own marks and therefore lives above this layer.

    Raises:
        SourceError: UNKNOWN_SOURCE, without repeating the spec, which may hold a password.
    """
    scheme, _, place = spec.partition(":")
    if generators is not None and spec in generators:
        return generators[spec]()
    if scheme == "files":
        return FilesSource(place)
    if scheme == "sql":
        from margin_tasks.sources.sql import SqlSource

        return SqlSource(place)
    raise SourceError(FailureReason.UNKNOWN_SOURCE, f"the source is not understood; write {SPEC_FORMS}")
