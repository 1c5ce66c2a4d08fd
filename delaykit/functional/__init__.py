"""Pure tensor functions: operators know tensors and nothing else. One operator a file."""
