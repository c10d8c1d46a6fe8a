"""w_in, w_out Glorot uniform, w_rec orthogonal, biases 0 but 1 for a gate named f (Glorot 2010; Jozefowicz 2015)."""

from nbflow.inits import orthogonal


def draw(net, params, rng):
    """Fill `params` in place."""
    orthogonal.draw(net, params, rng)
    for g, gate in enumerate(net.cell_object.gates):
        params.bias[g] = 1.0 if gate == "f" else 0.0
