"""How parts are put into a module: retyping, histories, states that carry them, the adapter interface."""
