"""What a run makes of its finished pictures beside loose files: shards of datasets, and the trees of scorers."""
