"""Models: trained on the lake, stored with skops, announced on triax.models.v1, swapped in the stream."""
