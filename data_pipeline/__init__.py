"""Raw files -> shards -> packed batches. Knows nothing of the model."""
