"""What all benches share: contestants, rounds, measuring, reports, comparison with another checkout."""
