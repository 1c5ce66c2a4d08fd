"""What a neuron itself may learn, whichever library it comes from."""
