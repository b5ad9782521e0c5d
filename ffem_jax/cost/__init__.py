"""What a network costs, read off an abstract trace of its one definition."""
