"""A whole Kubernetes on one machine without containers, for development and tests."""
