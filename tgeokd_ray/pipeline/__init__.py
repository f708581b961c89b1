"""The chain from raw files to results: stages, re-use by digest, plans, engines."""
