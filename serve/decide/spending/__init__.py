"""What an account usually does, what it will do next, and what its owner should be told."""
