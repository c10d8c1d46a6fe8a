"""The loops of the CPU: kernels that know addresses, and loops over whole arrays."""
