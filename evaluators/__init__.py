"""A tuned model and test pairs become replies, and replies become scores."""
