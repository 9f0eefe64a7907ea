"""Files that people have: images, audio, tile images of symbols, and the checkpoints of the upstream."""
