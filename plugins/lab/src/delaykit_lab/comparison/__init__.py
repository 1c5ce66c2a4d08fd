"""Comparing methods under one protocol: equal budgets, choices on validation, the test set scored once."""
