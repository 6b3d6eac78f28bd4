"""The rules of Django's request handling, each a test over HTTP against a server process."""
