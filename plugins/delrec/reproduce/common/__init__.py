"""Networks, variants and records that the scripts beside this folder share."""
