"""A network: what it is made of, where its parameters lie, what may be passed with it."""
