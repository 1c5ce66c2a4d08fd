"""Records of finished runs, what made them, and the tables made from them."""
