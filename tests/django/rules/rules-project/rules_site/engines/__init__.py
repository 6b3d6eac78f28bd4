"""Django's database engines, whose connections report their opening and closing."""
