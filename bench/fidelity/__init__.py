"""How near a model's logits and tokens are to a reference. It stays in the checkout: its data lie in tests/data."""
