"""Who runs the plugin's operators: the judge, plain torch, and Numba; a file each, with one function an operator."""
