"""WebDataset tars with an index: written, described, checked and read."""
