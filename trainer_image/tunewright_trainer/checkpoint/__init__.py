"""Checkpoints that are whole or not there: drafted, synced, listed with their hashes, then renamed.

Layout under ``<workspace>/jobs/<uid>/checkpoints/``::

    step-00000120-a2/            step 120, written by attempt 2
        manifest.json            every file with size and sha256; written last
        global_step120/…         DeepSpeed's shards, one set per rank
        rng_state_<rank>.pth     random state of each rank
        scheduler.pt, trainer_state.json, adapter/

What a manifest proves is that nothing was damaged, not who wrote it. DeepSpeed's shards are pickles and
DeepSpeed unpickles them, so whoever can write to the workspace claim can run code in the trainer: give
a job a claim (or a folder's permissions) that only its own pods can write to.
"""
