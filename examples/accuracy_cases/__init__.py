"""Models with real weights, data that they are for, and a measure of how well they do on it."""
