"""The scripts that a user launches."""
