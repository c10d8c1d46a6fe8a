"""A second opinion: the same networks built of PyTorch's operations, for its automatic differentiation."""

from __future__ import annotations

import naive

STEPS = {
    "tanh": lambda torch, a, r, s: (torch.tanh(a[0] + r[0]),),
    "sigmoid": lambda torch, a, r, s: (torch.sigmoid(a[0] + r[0]),),
    "relu": lambda torch, a, r, s: (torch.relu(a[0] + r[0]),),
    "linear": lambda torch, a, r, s: (a[0] + r[0],),
    "lstm": lambda torch, a, r, s: _lstm(torch, *(x + y for x, y in zip(a, r, strict=True)), s[1]),
    "gru": lambda torch, a, r, s: _gru(torch, torch.sigmoid(a[0] + r[0]), torch.sigmoid(a[1] + r[1]), a, r, s[0]),
    "leaky_tanh": lambda torch, a, r, s: leaky_tanh(torch, a, r, s),
    "mgu": lambda torch, a, r, s: (torch.lerp(s[0], torch.tanh(a[1] + _u(torch, a, r) * r[1]), _u(torch, a, r)),),
    "rotation": lambda torch, a, r, s: rotation(torch, a, r, s),
    "ugrnn": lambda torch, a, r, s: (torch.lerp(torch.tanh(a[1] + r[1]), s[0], torch.sigmoid(a[0] + r[0])),),
}


def leaky_tanh(torch, a, r, s, rate=0.1):
    return (torch.lerp(s[0], torch.tanh(a[0] + r[0]), torch.as_tensor(rate, dtype=torch.float64)),)


def rotation(torch, a, r, s, real=0.9, imaginary=0.3):
    """By complex numbers, which the cell does without."""
    turn = torch.complex(*(torch.as_tensor(part, dtype=torch.float64) for part in (real, imaginary)))
    z = turn * torch.complex(s[0], s[1]) + torch.complex(a[0] + r[0], a[1] + r[1])
    return z.real, z.imag


def _u(torch, a, r):
    return torch.sigmoid(a[0] + r[0])


def _lstm(torch, i, f, g, o, c):
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(torch, r, z, a, rec, h):
    return ((1 - z) * torch.tanh(a[2] + r * rec[2]) + z * h,)


def _losses(torch):
    F = torch.nn.functional
    return {
        "softmax": lambda y, target: F.cross_entropy(y, target, reduction="none"),
        "square": lambda y, target: ((y - target) ** 2).sum(-1),
        "bernoulli": lambda y, target: F.binary_cross_entropy_with_logits(y, target, reduction="none").sum(-1),
    }


def losses_of_sequences(torch, case, kind, noise=None):
    """Return the parameters by name, float64 tensors that ask for gradients, and each sequence's share of the loss.

    `noise` (T, B, G, H) is added to a_in.
    """
    p = {name: torch.tensor(part, requires_grad=True) for name, part in case.params.items()}
    state = torch.tensor(case.state, dtype=torch.float64)
    return p, _losses_from(torch, case, kind, p, torch.tensor(case.plain[0]), state, noise)


def _losses_from(torch, case, kind, p, inputs, state, noise=None):
    """Return each sequence's share of the loss, from inputs and a first state (B, S, H)."""
    targets, weights = (torch.tensor(part) for part in case.plain[1:])
    s = state.unbind(1)
    total = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for t in range(len(inputs)):
        a_in = p["bias"] + (
            p["w_in"][inputs[t]] if kind == "tokens" else torch.einsum("bn,ngh->bgh", inputs[t], p["w_in"])
        )
        if noise is not None:
            a_in = a_in + torch.tensor(noise[t])
        a_rec = torch.einsum("bk,kgh->bgh", s[0], p["w_rec"])
        if naive.CELLS[case.cell].has_bias_rec:
            a_rec = a_rec + p["bias_rec"]
        s = STEPS[case.cell](torch, a_in.unbind(1), a_rec.unbind(1), s)
        y = s[0] @ p["w_out"] + p["b_out"]
        total = total + weights[t] * _losses(torch)[case.net.loss](y, targets[t])
    return total


def gradient(torch, p, value):
    """Return d value / d theta as one NumPy vector."""
    found = torch.autograd.grad(value, [part for part in p.values() if part.numel()], retain_graph=True)
    return torch.cat([d.ravel() for d in found]).numpy()


def ends(torch, case):
    """Return dL/dx (T, B, N) and dL/ds_0 (B, S, H) of a case that begins with its state."""
    p = {name: torch.tensor(part) for name, part in case.params.items()}
    inputs, state = (
        torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in (case.plain[0], case.state)
    )
    total = _losses_from(torch, case, "dense", p, inputs, state).sum()
    return tuple(found.numpy() for found in torch.autograd.grad(total, [inputs, state]))
