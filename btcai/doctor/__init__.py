"""What is wrong with an installation, a project and its champions, and the command that mends each."""
