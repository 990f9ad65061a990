"""The only code that talks to the API server: client, caches, queue, lease and the one writer."""
