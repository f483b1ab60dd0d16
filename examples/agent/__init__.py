"""An agent that remembers conversations, on polystore. Read entities.py, then memory.py."""
