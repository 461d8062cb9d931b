"""The monitor: what happened, kept in a journal and shown in frames."""
