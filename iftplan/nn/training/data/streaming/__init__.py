"""Images that stay on the disk: read, decoded and augmented when a batch is taken, by processes of their own."""
