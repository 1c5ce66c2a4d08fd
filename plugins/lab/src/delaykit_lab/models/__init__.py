"""The demo's networks: ordinary code of each library that knows nothing of delays, one file a library."""
