"""What the program knows of chest X-rays: report text in, findings out. Pure Python; imports nothing above it."""

from cxr_reason.radiology.findings import LABELS, Finding, Reading, Sentence, read
from cxr_reason.radiology.lexicon import LEXICON, Entry, Lexicon

__all__ = ["LABELS", "LEXICON", "Entry", "Finding", "Lexicon", "Reading", "Sentence", "read"]
