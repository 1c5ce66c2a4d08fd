"""One segment's parameters bound to the operator that runs them."""
