"""The FineTuneJob API: the pydantic models are the one source of schema, rules, defaults and docs."""
