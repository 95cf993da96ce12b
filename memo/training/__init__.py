"""The pretraining run: engine, loop, checkpoints, log."""
