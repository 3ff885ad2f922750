"""CuratedSchema: the reviewed schema enters the pipeline by content, not by path."""
