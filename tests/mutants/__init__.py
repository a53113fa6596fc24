"""Errors planted in the package, and the runner that sees whether the tests find them."""
