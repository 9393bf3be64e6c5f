"""The HTTP service of trained models: an API for programs, and a page for users with a browser."""
