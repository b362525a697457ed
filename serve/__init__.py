"""The service, its command line and its client."""
