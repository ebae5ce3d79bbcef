"""The example that reads pages, measured. It stays in the checkout: the package has neither examples nor pages."""
