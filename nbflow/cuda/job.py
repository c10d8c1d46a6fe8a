"""The table that a grid is given: sizes, flags, and where each array lies.

One float array and one int32 array on the card hold everything; a third, the table, says where. `at(job, NAME, r)` is
the place of replica r's part of an array. Arrays are C-ordered and packed, without padding; `steps`, which varies from
batch to batch, is an argument of its own, and T below is the largest one there is room for.

====================  ==================  ==========================================================================
array                 shape               what
====================  ==================  ==========================================================================
THETA, D_THETA        (P,)                parameters, and their gradient
RAW                   (P,)                the gradient before it was clipped; D_THETA itself where nobody asks
INPUTS                (T, B, N)           dense inputs
TARGETS               (T, B, M)           targets that are no classes
WEIGHTS               (T, B)
START                 (B, S, H)           a first state that was given
STATES                (T+1, B, S, H)      s_t
SAVED                 (T, B, K, H)        what the cell keeps for its way back
PRE, REC              (T, B, G, H)        gradients at a_in and a_rec; one array where the cell is additive
DELTA                 (T+1, B, S, H)      delta_t; (1, B, S, H) where only the present one is kept
V                     (T, B, S, H)        v_t, where it is kept; the grid of Omega scales its h-line, or that of
                                          tangents puts w_t in its place
Y                     (T, B, M)           outputs, overwritten by dL/dy, at steps with weight
LOSSES                (T, B)              weight times loss
DELTA_NORM, V_NORM    (T+1, B), (T, B)
PENALTIES, COUNTED    (T, B)              penalty(q), and 1 where it counts; or the penalty of a state, over its steps
H_NORM, PULL          (T+1, B), (T, B)    ||h_t||, and alpha times the slope of such penalties there
FLOW_SLOPE            (T, B)              2 penalty'(q) / ||delta||, 0 where not counted, for Omega's other derivatives
STATES_DOT            (T+1, B, S, H)      u_t, tangents of the states
REC_DOT               (T, B, G, H)        tangents of a_rec, then the gradients at a_rec and their tangents together
PRE_DOT               (T, B, G, H)        likewise at a_in; none where the cell is additive
DELTA_DOT             (B, S, H)           the tangent of the present delta_t
Y_DOT                 (T, B, M)           the tangent of dL/dy, 0 at steps without weight
Y_BOTH                (T, B, M)           dL/dy and its tangent together
W_BACK                (G, H, H)           w_rec transposed, where it does not fit into shared memory
PARTIAL               (parts, P)          weight gradients of each part of the steps, or of each group of sequences
PARTIAL_FLOW          (parts, H, G, H)    likewise Omega's of v or w alone, at w_rec
PARTIAL_OUT           (parts, H, M)       and of u, at w_out
GROUP_NORMS           (parts, 3)          root and scale of the norm of each group's gradient, and 1 where it is finite
GROUP_THRESHOLD       (1,)                the limit of these norms
REPORT                (columns,)          as `nbflow.cpu.report.GRADIENT` names them
ALPHA, LR, THRESHOLD  (1,)
STEP_LENGTH           (1,)                of random steps, where it is not the threshold
HIDDEN_THRESHOLD      (1,)                of the clip inside back-propagation
DETACH                (1,)                the probability that h is detached at a step
SLOTS                 (K', P)             what the optimizer keeps
SETTINGS              -                   the optimizer's; of all replicas together
CELL_SETTINGS         (K', H)             the cell's; of all replicas together
HELD                  (P,)                1 where a parameter stays as it is; there only where some do
CLIP_REPORT           (columns,)          `nbflow.cuda.clip`
CLIPPED               (spans,)            entries that the clip changed, by span or by chunk
INSIDE                (blocks,)           what the clip inside back-propagation clipped, by block of sequences
RULE_SLOTS            (K', P)             what a rule of clipping remembers
RULE_FRESH            (K', P)             and what it would, once the step is taken
RULE_SETTINGS         -                   its settings; of all replicas together
MEASURED              (P,)                what its norms are of
MEASURED_NORM         (2,)                root and scale of the norm of all of that
HISTORY               (rows, columns)     reports of the last updates, and their thresholds
TOKENS, CLASSES       int32 (T, B)        inputs and targets that are integers
FIRST, HEARD, LAST    int32 (B,)          first step with weight, the number of steps up to the last one with weight,
                                          and how many are taken
SPANS                 int32 (spans, 3)    first, count and stride of what a rule of clipping measures; of all replicas
WRONG                 int32 (B,)          whether the answer to a sequence is wrong
DETACHED              int32 (T,)          1 where h is detached, 0 elsewhere
IDS                   int32 (1,)          the number under which a replica draws
STEPS_TAKEN           int32 (1,)          by the optimizer
LEARNT                int32 (1,)          gradients that a rule of clipping remembers
====================  ==================  ==========================================================================
"""

from __future__ import annotations

from nbflow._compile import unit

SIZES = ("REPLICAS", "BATCH", "N_IN", "GATES", "HIDDEN", "LINES", "N_OUT", "PARAMETERS", "BIAS_REC",
         "IS_TOKENS", "IS_ADDITIVE", "IS_CARRIED", "IS_WHOLE", "KEEPS_DELTA", "PART_STEPS", "GROUP_ROWS",
         "GROUP_SKIPS", "DERIVATIVE")  # fmt: skip
(REPLICAS, BATCH, N_IN, GATES, HIDDEN, LINES, N_OUT, PARAMETERS, BIAS_REC, IS_TOKENS, IS_ADDITIVE, IS_CARRIED,
 IS_WHOLE, KEEPS_DELTA, PART_STEPS, GROUP_ROWS, GROUP_SKIPS, DERIVATIVE) = range(len(SIZES))  # fmt: skip

FLOATS = ("THETA", "D_THETA", "RAW", "INPUTS", "TARGETS", "WEIGHTS", "START", "STATES", "SAVED", "PRE", "REC", "DELTA",
          "V", "Y", "LOSSES", "DELTA_NORM", "V_NORM", "PENALTIES", "COUNTED", "W_BACK", "PARTIAL", "PARTIAL_FLOW",
          "GROUP_NORMS", "REPORT", "ALPHA", "LR", "THRESHOLD", "GROUP_THRESHOLD", "HIDDEN_THRESHOLD", "SLOTS",
          "SETTINGS", "CELL_SETTINGS", "HELD", "CLIP_REPORT", "CLIPPED", "INSIDE", "HISTORY", "DETACH",
          "H_NORM", "PULL", "RULE_SLOTS", "RULE_FRESH", "RULE_SETTINGS", "MEASURED", "MEASURED_NORM",
          "FLOW_SLOPE", "STATES_DOT", "REC_DOT", "PRE_DOT", "DELTA_DOT", "Y_DOT", "Y_BOTH", "PARTIAL_OUT",
          "STEP_LENGTH")  # fmt: skip
INTEGERS = ("TOKENS", "CLASSES", "FIRST", "HEARD", "LAST", "SPANS", "WRONG", "IDS", "STEPS_TAKEN",
            "DETACHED", "LEARNT")  # fmt: skip
# Each array has two numbers: where it begins, and how far apart the replicas' parts are.
PLACES = {name: len(SIZES) + 2 * k for k, name in enumerate(FLOATS + INTEGERS)}
(THETA, D_THETA, RAW, INPUTS, TARGETS, WEIGHTS, START, STATES, SAVED, PRE, REC, DELTA, V, Y, LOSSES, DELTA_NORM, V_NORM,
 PENALTIES, COUNTED, W_BACK, PARTIAL, PARTIAL_FLOW, GROUP_NORMS, REPORT, ALPHA, LR, THRESHOLD, GROUP_THRESHOLD,
 HIDDEN_THRESHOLD, SLOTS, SETTINGS, CELL_SETTINGS, HELD, CLIP_REPORT, CLIPPED, INSIDE, HISTORY, DETACH, H_NORM, PULL,
 RULE_SLOTS, RULE_FRESH, RULE_SETTINGS, MEASURED, MEASURED_NORM, FLOW_SLOPE, STATES_DOT, REC_DOT, PRE_DOT, DELTA_DOT,
 Y_DOT, Y_BOTH, PARTIAL_OUT, STEP_LENGTH,
 TOKENS, CLASSES, FIRST, HEARD, LAST, SPANS, WRONG, IDS, STEPS_TAKEN, DETACHED, LEARNT) = PLACES.values()  # fmt: skip
LENGTH = len(SIZES) + 2 * len(PLACES)


@unit
def at(job, name, replica):
    """Return where replica's part of an array begins."""
    return job[name] + replica * job[name + 1]
