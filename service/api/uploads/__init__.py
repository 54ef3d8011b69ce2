"""What comes as images: the files of an archive, and what is sent by mistake in place of an image."""
