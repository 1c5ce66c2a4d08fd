"""What happens to a current on its way from a connection to its neuron, as the example shows it."""
