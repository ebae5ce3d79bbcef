"""What all processes of an ingress count, and who of them is there: in memory that outlives each of them."""
