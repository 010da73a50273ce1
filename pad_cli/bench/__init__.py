"""What a token costs on each way to decode (floor 6): paths side by side, agreeing before they are timed."""
