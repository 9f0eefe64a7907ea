"""Measuring: quality, rate, speed and memory, beside other codecs. No part of the codec."""
