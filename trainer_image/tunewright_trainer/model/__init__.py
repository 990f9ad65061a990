"""What is known of a model before it is loaded, read from its config and its weights' headers."""
