"""The arithmetic of docs/architecture-at-scale.md: what was measured, what is assumed, what follows."""
