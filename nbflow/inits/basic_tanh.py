"""All weights N(0, .1), a standard deviation; biases 0 (Pascanu, Mikolov, Bengio 2013, section 4.1)."""

DEVIATION = 0.1


def draw(net, params, rng):
    """Fill `params` in place."""
    for block in (params.w_in, params.w_rec, params.w_out):
        block[...] = rng.normal(0.0, DEVIATION, block.shape)
