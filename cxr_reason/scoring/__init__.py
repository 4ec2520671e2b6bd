"""How well a model answers and reasons: judged items in, tables with intervals, comparisons and a page out."""

from cxr_reason.rewards.statements import verify_claims

__all__ = ["verify_claims"]
