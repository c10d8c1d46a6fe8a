"""The norm rule for each unit's incoming weights, against v max(||w_unit||, 1e-3): AGC (Brock et al. 2021, eq. 3).

A unit's weights are a column of w_in, w_rec or w_out, gate by gate; each array of biases is one group.
"""

from nbflow.clips.norm import clip
from nbflow.records import Rule

RULE = Rule(over="unit", clip=clip, relative=True)
