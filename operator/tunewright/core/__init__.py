"""Decisions: what a job's world looks like, what should happen next, and what status says. Pure."""
