"""What is said and when: speech recognition and forced alignment, both only if asked for."""
