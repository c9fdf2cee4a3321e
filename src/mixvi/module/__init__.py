"""What the models are: tensors only, never AnnData."""
