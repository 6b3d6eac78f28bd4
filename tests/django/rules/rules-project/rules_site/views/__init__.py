"""Views, by what they are about; each sync one has an async twin where Django has both."""
