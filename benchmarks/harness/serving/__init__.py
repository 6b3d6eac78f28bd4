"""`run_server.py`: what is asked of the servers, the load, the rounds, the tables."""
