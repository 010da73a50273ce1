"""`pad serve` (floor 6): steered answers over HTTP, in the form of the OpenAI API, for one machine."""
