"""What the reproductions of this folder share."""
