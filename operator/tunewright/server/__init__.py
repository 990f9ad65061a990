"""What the operator serves: trainers' progress over TLS, metrics, health."""
