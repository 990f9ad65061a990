"""The planner: memory arithmetic and the choices made from it. Pure, no torch."""
