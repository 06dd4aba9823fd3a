"""Open clearing house margin pipeline: the work of a clearing day, importable without Airflow."""

__version__ = "0.1.0"
