"""Learning what one user wants: weights from choices between answers, and new principles from examples (floor 6)."""
