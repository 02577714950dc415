"""Pairs and a model become a tuned model; the only room that knows trl and peft."""
