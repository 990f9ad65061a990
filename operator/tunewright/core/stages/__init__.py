"""The stages of a job's life in their order. Each looks at a Context and either answers with an Outcome
(the job is here, this has to happen) or with a Context (done here, go on)."""
