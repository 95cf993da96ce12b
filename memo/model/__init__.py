"""The cross-modal transformer: embedders, attention, encoder, checkpoints of others, FLOPs."""
