"""What several nodes, the monitor and the report use."""
