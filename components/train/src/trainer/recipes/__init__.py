"""The recipes that come with the trainer."""
