"""Data on its way from files of rows to packed token sequences: read, lint, render, tokenise, pack, store."""
