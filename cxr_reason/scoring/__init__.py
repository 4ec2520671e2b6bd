"""How well a model answers and reasons."""

from cxr_reason.rewards.statements import verify_claims

__all__ = ["verify_claims"]
