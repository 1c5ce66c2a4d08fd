"""Whole networks fused: the model's own forward runs, and its layers answer from sequences computed ahead."""
