"""A step of norm v in a uniformly random direction if ||g|| > v (Goodfellow et al. 2016, section 10.11.1)."""

from nbflow.clips.norm import clip
from nbflow.records import Rule

# Where the norm rule would have clipped, a random step takes its place.
RULE = Rule(over="all", clip=clip, random=True)
