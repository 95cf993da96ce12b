"""One file an objective; see `base.py` for the contract."""
