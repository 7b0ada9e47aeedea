"""Tells Kubernetes which gateway pod to take away first: a program of its own, `python -m app deletion-cost`."""
