"""Search spaces of a whole model: rewrites of its graph, before it is laid out and fused."""
