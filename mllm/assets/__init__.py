"""What ships with the package: the small model, its tokenizer, question template sets."""
