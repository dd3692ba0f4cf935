"""The web server of a node: event routes ahead of FastAPI, which serves the rest."""
