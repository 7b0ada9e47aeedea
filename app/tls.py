"""TLS to servers whose certificates an authority of the operator's or of the cluster has signed."""

import ssl


def trusting(ca: str | None) -> ssl.SSLContext:
    """Chain, name and dates are checked. `ca`: the authority's PEM file; None: those of the system.

    Raises OSError where the file cannot be used (ssl.SSLError is one)."""
    context = ssl.create_default_context(cafile=ca)
    # Python 3.13 sets it, and such authorities often lack the extensions that it asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
