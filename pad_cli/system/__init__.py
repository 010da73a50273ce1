"""The machine: run directories, locks, progress, terminal, processes, caches (floor 1)."""
