"""The rows of a batch: whose past is whose, when rows leave, come, move or begin anew."""
