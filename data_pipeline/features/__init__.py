"""Decoding of video and sound, and the frozen encoders that turn them into feature rows."""
