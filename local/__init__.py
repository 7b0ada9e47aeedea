"""The local stack: what `make run` and the live tests start on one machine. Never part of a deployment."""
