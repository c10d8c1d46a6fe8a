"""The norm rule for each layer of a `Stack` alone; a network without others above it is one layer.

(Each layer of a deep network by the norm of its own gradient: layer-wise clipping, as in McMahan et al. 2018.)
"""

from nbflow.clips.norm import clip
from nbflow.records import Rule

RULE = Rule(over="layer", clip=clip)
