"""Is an estimator unbiased? Proofs by enumeration, sequential tests by draws, verdicts."""

from gradlab.verification.order import Ladder, verify_order
from gradlab.verification.verdict import Verdict
from gradlab.verification.verifying import verify

__all__ = ["Ladder", "Verdict", "verify", "verify_order"]
