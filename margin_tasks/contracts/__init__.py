"""Every feed and published table, every field, rule and failure reason, defined once."""
