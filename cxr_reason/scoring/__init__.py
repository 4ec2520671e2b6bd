"""How well a model answers and reasons: judged items in, tables with intervals, comparisons and a page out."""
