"""The command line: plugins, doctor, new, and whatever plugins add."""
