"""Callbacks for frameworks that run the training loop themselves: one module for each of them, which is
imported by name, so that nobody needs the others."""
