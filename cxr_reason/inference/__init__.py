"""Questions and films to predictions: what `cxr infer` does with whatever engine runs the model."""
