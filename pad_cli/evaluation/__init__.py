"""Evaluation (floor 6): benchmark x method x scorers -> report."""
