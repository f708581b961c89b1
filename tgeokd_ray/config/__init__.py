"""What a job is told, checked whole before anything starts."""
