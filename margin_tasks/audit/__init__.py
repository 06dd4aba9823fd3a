"""Run identity, content hashes and the manifest: what was computed, from what, by which code."""
