"""`rondel serve` as a real process, spoken to over real sockets."""
