"""Small helpers: imports, storage, logging, distributed."""
