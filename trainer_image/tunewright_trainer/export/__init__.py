"""Export: brings a finished adapter or model from the workspace to its destination, verified."""
