"""The margin desk: what happens to calls after a run has computed them, kept in the lake's record of calls."""
