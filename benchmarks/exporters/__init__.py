"""Small models as each exporter writes them; each file is a program for that exporter's Python."""
