"""Carillon: one publish, every socket, on any pod."""

__version__ = "0.1.0"
