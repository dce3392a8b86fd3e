"""Callbacks that log step sizes in other people's trainers; nothing in `samt` imports them."""
