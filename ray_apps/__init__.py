"""Dataset to model, predictions and evidence, on Ray."""
