"""The lake and its models: the only module that opens DuckDB, through which every published figure passes."""
