"""Where pixels come from: slides, their pyramids, tissue, tiles and stain."""
