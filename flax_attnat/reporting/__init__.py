"""Tables and heat maps of finished runs."""
