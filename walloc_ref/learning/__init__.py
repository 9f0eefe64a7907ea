"""Learning from latents: many files as one array. No part of the codec."""
