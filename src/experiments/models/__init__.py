"""Classifiers that take raw inputs, preprocess them inside the model and return float32 logits."""
