"""The stages of the codec, one module each, forward and inverse beside each other (SPEC.md sections 3 to 11)."""
