"""What happens after the encoder: gallery, correction, combination."""
