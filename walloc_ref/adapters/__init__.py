"""Where arrays and pictures are opened: Pillow, imageio, Zarr, numcodecs, webdataset, Hugging Face datasets.

Each adapter is a module of its own that is imported when it is used, or by an entry point; none is needed by the codec.
"""
