"""Model folders, the published form, the Hugging Face Hub, and conversion between them."""
