"""Tests that need Java and Beam's job server for Flink: make test-flink."""
