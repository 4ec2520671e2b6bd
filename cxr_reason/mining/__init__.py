"""From a report to questions with chains of reasoning: what `cxr mine` does to a study."""
