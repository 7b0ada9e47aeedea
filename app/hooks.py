"""Yours to edit: what your application says to connections, subscriptions and publications."""
