"""Inspection of a data set: findings, page and terminal report."""
