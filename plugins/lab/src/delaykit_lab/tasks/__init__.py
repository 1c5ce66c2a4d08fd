"""Tasks: one file each, a frozen dataclass that says how its data become frames."""
