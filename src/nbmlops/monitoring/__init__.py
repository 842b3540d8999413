"""Pure statistics of monitoring: what the training data looked like, and what a window does."""
