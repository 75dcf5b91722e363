"""Training of networks: spots as arrays, batches, losses, epochs, checkpoints and fine-tuning."""
