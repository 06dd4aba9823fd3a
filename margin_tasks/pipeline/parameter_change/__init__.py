"""Calibration, proposals of changed parameters, approval by a second person, and the record of all of it."""
