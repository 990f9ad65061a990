"""Training: the pod's entrypoint starts one process per rank, which trains in step with its gang."""
