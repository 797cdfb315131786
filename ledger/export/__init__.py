"""A ledger in the forms that other programs read: tables, JSON Lines, a git repository, MLflow runs."""
