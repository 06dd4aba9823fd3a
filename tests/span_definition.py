"""The SPAN points on file, for tests of arrays and scans."""

from __future__ import annotations

from datetime import date

from margin_tasks.scenarios.registry import scenario_definition_in_force

STANDARD_POINTS = scenario_definition_in_force("span", business_date=date(2026, 2, 5)).span
