"""The SDK for programs on the same host as the graph."""
