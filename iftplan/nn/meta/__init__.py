"""Models without data: their copies, inputs, tensors and what identifies them."""
