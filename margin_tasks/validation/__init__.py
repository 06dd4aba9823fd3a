"""The contract gate: raw text in, typed feeds out, bad rows in quarantine with a named reason."""

from __future__ import annotations

from margin_tasks.validation.gate import GateResult, gate

__all__ = ["GateResult", "gate"]
