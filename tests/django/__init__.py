"""The Django project of examples/django_site, through real HTTP against a real server process."""
