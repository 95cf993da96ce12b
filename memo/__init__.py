"""The model, its objectives and all that trains it."""
