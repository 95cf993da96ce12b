"""Tuning the pretrained model on labelled corpora, and measuring it honestly."""
