"""Reading answers, splitting reasoning into steps and claims, the ratios: what `cxr rl` rewards and `cxr score` counts.

`judge(record)` gives what one judge says of one prediction, as a *details line*; docs/judging.md describes its fields.
"""

from cxr_reason.rewards.judges import JUDGES, judge

__all__ = ["JUDGES", "judge"]
