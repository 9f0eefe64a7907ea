"""Files that people have: images, audio, arrays, spectra, scans; tile images of symbols; checkpoints of the upstream."""
