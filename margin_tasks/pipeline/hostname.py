"""The address under which the other components of Airflow reach this one."""

from __future__ import annotations

import os
import socket


def advertised_host() -> str:
    """Return ``MARGIN_ADVERTISED_HOST``, or the machine's name.

    Airflow's own callables ask the name service and fail every task of a worker whose name does not resolve, while
    the worker looks ready; a deployment therefore states the address.
    """
    return os.environ.get("MARGIN_ADVERTISED_HOST") or socket.gethostname()
