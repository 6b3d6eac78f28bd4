"""A small bookshelf that shows each way of concurrency inside Django views."""
