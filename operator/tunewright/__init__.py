"""The Tunewright operator: fine-tunes language models on a Kubernetes cluster's own GPUs."""

__version__ = "0.1.0"
