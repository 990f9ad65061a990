"""Builders: one module per kind of child, values in, Kubernetes manifests (dicts) out. Pure."""
