"""The `headgate` program: one file a command, assembled in `app.py`."""
