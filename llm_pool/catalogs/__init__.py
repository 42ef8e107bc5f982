"""Where a catalogue comes from: a file of ours or of LiteLLM, or the shipped one, less what is not there."""
