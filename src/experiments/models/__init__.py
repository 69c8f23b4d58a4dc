"""Classifiers that take raw inputs, preprocess them inside and end in float32 logits."""
