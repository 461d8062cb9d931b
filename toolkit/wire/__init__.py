"""What a call is made of: steps, bytes to lines, how long to wait."""
