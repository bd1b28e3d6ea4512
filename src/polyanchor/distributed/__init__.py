"""The same losses on several processes: a batch spread over them, or the classes too."""
