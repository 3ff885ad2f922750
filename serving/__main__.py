"""`python -m serving`: the server by itself."""

from serving.cli import serve

serve(prog_name="python -m serving")
