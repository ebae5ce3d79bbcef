"""The process that runs actors: its loop, its turns, its line to the supervisor, its end."""
