"""Documents for people: margin notices and the day report, rendered from frames, and one thin writer."""
