"""Steps of a prediction after the encoder: gallery retrieval, correction, combination and intervals."""
