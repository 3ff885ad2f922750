"""The commands of this room, a page each: parse, call, report."""
