"""How reference tests read published cases: one parametrised test for every case of every file that is found.

The files come from the folder named by ``MARGIN_REFERENCE_DIR`` (default: ``cases`` beside this module), the larger
data files beside the originals from ``MARGIN_DATA_DIR`` (default: ``../shared`` seen from the root of the repository).
A file or section that is absent is skipped by name. No test states a case, a count or a number that a file holds, so
that another file of the same name and structure is judged in the same way.

Tolerances come from the files: the case's own, else that of its section, else that of the file. The few files that
state none have theirs in ``UNSTATED_TOLERANCES``, each with its ground.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parent
OWN_CASES = HERE / "cases"
KNOWN_DIFFERENCES = HERE / "known_differences.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a computed value may lie from a published one: the larger of the two bounds."""

    absolute: float
    relative: float = 0.0

    def approx(self, expected: Any) -> Any:
        """The published value, for ``assert computed == tolerance.approx(published)``."""
        return pytest.approx(expected, abs=self.absolute, rel=self.relative)


# Exact arithmetic, printed in full or as short decimals: 1e-9, which the methodology "crypto", clarification 30, gives
# to such margin cases.
_EXACT = Tolerance(absolute=1e-12, relative=1e-9)

UNSTATED_TOLERANCES = {
    "crypto/inverse_contracts": _EXACT,
    "crypto/perp_funding_derived": _EXACT,
    "crypto/vega_perp_funding_margin": _EXACT,
    # SVI rows without a tolerance of their own: that of the Black-76 rows of the same file.
    "crypto/options_black76_svi_lyra": Tolerance(absolute=1e-12),
    # Printed to ten significant digits and at most nine decimals: one unit of the last of either.
    "crypto/options_vollib_values": Tolerance(absolute=1e-9, relative=1e-9),
    # Examples printed in full or as short decimals.
    "crypto/paradex_margin_examples": _EXACT,
    "crypto/okx_mr9_stablecoin_depeg": _EXACT,
    "crypto/collateral_tiers": _EXACT,
    # Conversion rates, rounded to twelve decimals by their rule: half a unit of the last.
    "regulatory/eurex_prisma_dave/expected": Tolerance(absolute=5e-13),
    # Rates are back-solved from rounded charges: methodology "crypto", clarification 20.
    "crypto/okx_mr4_mr7_spot_hedge": Tolerance(absolute=0.0, relative=3e-4),
    # Printed to cents.
    "crypto/marginfi_health_liquidation": Tolerance(absolute=0.005),
    "crypto/binance_usdm_liquidation_price": Tolerance(absolute=0.005),
    "crypto/rebalance_to_maintenance_small": Tolerance(absolute=0.005),
    # Whole dollars: the half cent that the methodology "regulatory", clarification R14, gives to margin calls.
    "tradfi/margin_call_examples": Tolerance(absolute=0.005),
    # R14: exact.
    "regulatory/bitemporal_as_of": Tolerance(absolute=0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One published case.

    ``row`` is the JSON value of the case (an object, or a list where the section is a table), ``document`` the whole
    file, for parameters that its cases share. ``label`` is the case's own name where it has one, else its number
    from 1 within the section.
    """

    file: str
    section: str
    label: str
    row: Any
    document: Any

    @property
    def key(self) -> str:
        """What ``known_differences.yaml`` calls the case."""
        return "/".join(part for part in (self.section, self.label) if part)

    @property
    def tolerance(self) -> Tolerance:
        """The tolerance that the case states, else its section, else its file, else ``UNSTATED_TOLERANCES``."""
        places = [self.row, *reversed(_along(self.document, self.section))]
        for place in places:
            for name in ("tol", "tolerance"):
                stated = _stated_tolerance(place.get(name)) if isinstance(place, dict) else None
                if stated is not None:
                    return stated
        return UNSTATED_TOLERANCES[self.file]

    def __getitem__(self, field: str) -> Any:
        """A field of the row."""
        return self.row[field]

    def __contains__(self, field: str) -> bool:
        return field in self.row

    def get(self, field: str, default: Any = None) -> Any:
        """A field of the row that not every case states."""
        return self.row.get(field, default)


def cases_folder() -> Path:
    """Folder of the case files: ``<folder>/<family>/<name>.json``."""
    return Path(os.environ.get("MARGIN_REFERENCE_DIR") or OWN_CASES)


def data_folder() -> Path:
    """Folder of the data files that are too large, or not free, to stand in the repository."""
    return Path(os.environ.get("MARGIN_DATA_DIR") or HERE.parents[2] / "shared")


def data_file(relative: str) -> Path:
    """A data file such as ``reference/tradfi/x.csv`` or ``market/y.parquet``; skips the test where it is absent."""
    path = data_folder() / relative
    if not path.is_file():
        pytest.skip(f"data file {relative} is absent from MARGIN_DATA_DIR ({data_folder()})")
    return path


def document(family: str, name: str, *, folder: Path | None = None) -> Any | None:
    """The parsed case file, None where it is absent."""
    path = (folder or cases_folder()) / family / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read(family: str, name: str, section: str = "", *, folder: Path | None = None) -> list[Case]:
    """Every case of one section of a file; empty where the file or the section is absent.

    Args:
        family: ``crypto``, ``tradfi`` or ``regulatory``.
        name: File name without ``.json``.
        section: Dotted path of a list (one case each), or of an object (one case); "" is the whole file.
        folder: Another folder of case files than the configured one.
    """
    whole = document(family, name, folder=folder)
    found = _along(whole, section)[-1]
    if found is None:
        return []
    rows = list(_labelled(found)) if isinstance(found, list) else [("", found)]
    return [Case(file=f"{family}/{name}", section=section, label=label, row=row, document=whole) for label, row in rows]


def cases(family: str, name: str, section: str = "", *, describe: Callable[[Any], str] | None = None) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize("case", cases(...))``, one for every case of the section.

    Args:
        family: ``crypto``, ``tradfi`` or ``regulatory``.
        name: File name without ``.json``.
        section: See :func:`read`.
        describe: Adds words about the row to the test id; what it cannot describe is left to the number.

    Returns:
        ``pytest.param`` of :class:`Case`. A known difference is a strict expected failure. Where the file or the
        section is absent: one parameter that is skipped by name.
    """
    found = read(family, name, section)
    if not found:
        missing = f"{family}/{name}.json" + (f", section {section}," if section else "")
        reason = f"{missing} is absent from {cases_folder()}"
        return [pytest.param(None, id="-".join(filter(None, (name, section))), marks=pytest.mark.skip(reason=reason))]
    differences = {(entry["file"], entry["case"]): entry for entry in known_differences()}
    parameters = []
    for case in found:
        difference = differences.get((case.file, case.key))
        marks = [pytest.mark.xfail(strict=True, reason=difference["reason"])] if difference else []
        parts = (name, case.section, case.label, describe(case.row) if describe else "")
        parameters.append(pytest.param(case, id=_slug("-".join(filter(None, parts))), marks=marks))
    return parameters


def proves(file: str, *keys: str) -> Callable[[Any], Any]:
    """Name the cases of a file that a test judges together, where it cannot be parametrised by them."""

    def named(function: Any) -> Any:
        function.proves = [(file, key) for key in keys]
        return function

    return named


def known_differences() -> list[dict[str, str]]:
    """Entries of ``known_differences.yaml``: file, case, reason, source."""
    return yaml.safe_load(KNOWN_DIFFERENCES.read_text(encoding="utf-8")) or []


def _along(whole: Any, section: str) -> list[Any]:
    """The file, and what lies on the dotted path down to the section; None from where the path ends."""
    places = [whole]
    for part in filter(None, section.split(".")):
        places.append(places[-1].get(part) if isinstance(places[-1], dict) else None)
    return places


def _stated_tolerance(stated: Any) -> Tolerance | None:
    """Reads ``0.0001``, ``"1e-12 (1e6 wei)"``, ``"1e-9 relative"`` and ``"exact"``."""
    if isinstance(stated, int | float):
        return Tolerance(absolute=float(stated))
    if not isinstance(stated, str):
        return None
    if stated.startswith("exact"):
        return Tolerance(absolute=0.0)
    number = re.match(r"[0-9.]+(?:[eE][-+]?[0-9]+)?", stated)
    if number is None:
        return None
    value = float(number[0])
    return Tolerance(absolute=0.0, relative=value) if "relative" in stated else Tolerance(absolute=value)


def _labelled(rows: list[Any]) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        names = [row[key] for key in ("name", "case", "id") if key in row] if isinstance(row, dict) else []
        label = _slug(str(names[0])) if names else str(number)
        if label in seen:
            label = f"{label}-{number}"
        seen.add(label)
        yield label, row


def _slug(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z.+_=-]+", "_", text).strip("_")
