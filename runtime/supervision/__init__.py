"""The parent process: it starts, watches, restarts and stops workers and gateway, and answers the CLI."""
