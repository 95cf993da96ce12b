"""`memo data preview`: a dataset as one self-contained HTML page."""
