"""Training by configuration: one job is one network, trained on one seed, on one device or on many."""
