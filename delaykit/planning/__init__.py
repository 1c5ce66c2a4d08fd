"""What will be done to which connection, decided before anything is touched."""
