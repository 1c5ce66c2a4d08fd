"""What a connection remembers: spikes under way, how they begin anew, and how they ride in states."""
