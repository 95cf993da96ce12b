"""One file a corpus: raw corpus -> clips."""
