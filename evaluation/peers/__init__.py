"""Other libraries on the same decisions: dev dependencies, imported only where they are used."""
