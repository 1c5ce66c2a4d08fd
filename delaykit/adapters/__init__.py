"""Adapters: each finds the connections and neurons of one library and knows where their state lives."""
