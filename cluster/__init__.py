"""The same command on another machine."""
