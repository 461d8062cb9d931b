"""Providers: each turns requests into HTTP and HTTP into replies, and never opens a connection itself."""
