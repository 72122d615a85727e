"""What this project is measured against: a loop of our own, TA-Lib, and other people's environments."""
