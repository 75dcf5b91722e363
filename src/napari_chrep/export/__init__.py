"""The Export widget: write a prediction to files."""
