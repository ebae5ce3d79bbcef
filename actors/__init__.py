"""The actors that an inference service is made of. Each room imports what it computes with only when it is used."""
