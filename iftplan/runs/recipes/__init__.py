"""Bundled recipes, in folders by what they train on."""
