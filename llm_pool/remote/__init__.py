"""The pool asked over HTTP, and the dialect that it and its service speak."""
