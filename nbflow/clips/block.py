"""The norm rule for each parameter array alone: w_in, w_rec, bias, ... (Keras' clipnorm)."""

from nbflow.clips.norm import clip
from nbflow.records import Rule

RULE = Rule(over="block", clip=clip)
