"""Did what was asked for hold: tests of coverage, tests of expected shortfall, adequacy of what was collected."""
