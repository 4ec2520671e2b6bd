"""What the program knows of chest X-rays: report text in, findings out. Pure Python; imports nothing above it."""

from cxr_reason.radiology.findings import Finding
from cxr_reason.radiology.lexicon import LEXICON, Entry, Lexicon
from cxr_reason.radiology.reading import LABELS, Reading, Sentence, read
from cxr_reason.radiology.verify import Verdict, claims, verify

__all__ = [
    "LABELS",
    "LEXICON",
    "Entry",
    "Finding",
    "Lexicon",
    "Reading",
    "Sentence",
    "Verdict",
    "claims",
    "read",
    "verify",
]
