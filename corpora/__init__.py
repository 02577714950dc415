"""Files become dialogues, and dialogues become prompt-reply pairs: readers, loaders, splits, samples."""
