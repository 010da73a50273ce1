"""Ways to answer a benchmark's items. A method is a registry entry; plug-ins can add more."""
