"""What to look at: states, how the gradient flows back through them, and what clipping does to it on average."""
