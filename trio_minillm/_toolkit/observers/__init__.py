"""Observers of attempts, OpenTelemetry's spans and metrics, and records for the log."""
