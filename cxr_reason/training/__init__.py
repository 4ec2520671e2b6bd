"""Training: records to datasets, supervised fine-tuning, checkpoints that survive a kill."""
