"""The contrastive Brain and what a training needs beside it."""
