"""What is asked of one neuron: how fast it leaks, and where its learned decays hang."""
