"""OpenAI's interface: chat requests, answers as documents and streams of events, the list of models."""
