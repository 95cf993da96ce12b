"""Heads: hidden states of a packed batch -> predictions; one file each."""
