"""The command line: a page a command, each of which parses, calls and reports."""
