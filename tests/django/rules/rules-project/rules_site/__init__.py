"""A Django project whose views, middleware and receivers report what happens to them."""
