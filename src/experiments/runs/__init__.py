"""Assembles, resumes and trains a run, and saves its results."""
