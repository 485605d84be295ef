"""What a user reads: diagnostics made of verdicts, their codes, and one renderer a format."""
