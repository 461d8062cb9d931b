"""What the toolkit costs beside the libraries that would be used instead: ``python -m benchmarks`` measures and writes ``docs/benchmarks.md``."""
