"""Load for any deployment: Locust users that speak the plain protocol and count what they did not get."""
