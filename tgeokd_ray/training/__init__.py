"""One process of a run: worker protocol, steps, the one loop, checkpoints, evaluation. Ray is unknown here."""
