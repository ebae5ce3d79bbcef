"""The engine that makes tokens: the network, its slots and sequences, sampling."""
