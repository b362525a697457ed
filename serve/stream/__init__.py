"""Events from elsewhere into a running service."""
