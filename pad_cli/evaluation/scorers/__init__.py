"""Ways to score an answer. A scorer is a registry entry; plug-ins can add more."""
