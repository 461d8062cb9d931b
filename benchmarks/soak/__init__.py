"""The soak: calls at a steady rate for half an hour against a server with faults, and a look at what the toolkit holds on to meanwhile."""
