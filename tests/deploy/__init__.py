"""Real proxies in front of the server, configured as examples/deploy says."""
