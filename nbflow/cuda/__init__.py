"""The grids of the CUDA backend, under the names of `nbflow.cpu`."""
