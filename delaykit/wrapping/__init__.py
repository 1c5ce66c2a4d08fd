"""Wrap existing models: plan, apply, control, save, and undo; the public names are delaykit's own."""
