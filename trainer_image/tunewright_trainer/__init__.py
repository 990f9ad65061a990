"""The Tunewright trainer: prepares data, trains with DeepSpeed, exports the adapter."""

__version__ = "0.1.0"
