"""The orchestrator over HTTP, one file per dialect."""
