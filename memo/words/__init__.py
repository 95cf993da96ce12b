"""Text as whole words with vectors: what the original multi-task models read."""
