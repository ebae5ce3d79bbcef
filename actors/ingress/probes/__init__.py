"""What operators ask of an ingress: whether it lives and is ready, its metrics, and the page for people."""
