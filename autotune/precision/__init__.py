"""Shorter numbers where they are faster, within what a user allows them to cost in accuracy."""
